// Pictures as queries: chosen, pasted, dropped, or the frame on which a video stands. They leave the browser as JPEG of
// at most 1024 pixels a side: encoders see a few hundred.

const SIDE = 1024;
const chooser = document.querySelector("#picture");
const error = document.querySelector("#error");

async function shrink(source, width, height) {
  const scale = Math.min(1, SIDE / Math.max(width, height));
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height].map((side) => Math.max(1, Math.round(side * scale)));
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#fff";  // behind what is transparent
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(source, 0, 0, canvas.width, canvas.height);
  const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.95));
  return { jpeg: await blob.arrayBuffer() };
}

// An element that shows a picture; the page may load images from the server alone.
export async function canvasOf(jpeg) {
  const bitmap = await createImageBitmap(new Blob([jpeg], { type: "image/jpeg" }));
  const canvas = Object.assign(document.createElement("canvas"), { width: bitmap.width, height: bitmap.height });
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  return canvas;
}

export const frameOf = (video) => shrink(video, video.videoWidth, video.videoHeight);

async function read(file) {
  try {
    const bitmap = await createImageBitmap(file);
    return await shrink(bitmap, bitmap.width, bitmap.height);
  } catch {
    error.textContent = `This browser cannot read ${file.name ? `“${file.name}”` : "what was pasted"} as a picture.`;
    return null;
  }
}

// Call a function with each picture that people bring, as { jpeg, name }.
export function onPicture(use) {
  const take = async (file) => {
    const picture = file && (await read(file));
    if (picture) use({ ...picture, name: file.name });
  };
  chooser.addEventListener("change", () => { take(chooser.files[0]); chooser.value = ""; });
  addEventListener("paste", ({ clipboardData }) => take([...clipboardData.files].find((file) => file.type.startsWith("image/"))));
  addEventListener("dragover", (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  addEventListener("dragleave", ({ relatedTarget }) => { if (!relatedTarget) document.body.classList.remove("dropping"); });
  addEventListener("drop", (event) => {
    document.body.classList.remove("dropping");
    if (!event.dataTransfer.files.length) return;
    event.preventDefault();
    take(event.dataTransfer.files[0]);
  });
}
