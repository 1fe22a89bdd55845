// Pictures of moments, asked for when their card comes near the screen. Videos do not say that a poster is missing: it is
// loaded as an image before, and the video gets its error.

const near = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    near.unobserve(target);
    show(target);
  }
}, { rootMargin: "200px" });

function show(video) {
  const image = new Image();
  image.addEventListener("error", () => video.dispatchEvent(new Event("error")));
  video.poster = image.src = video.dataset.poster;
}

export function poster(video, at) {
  if (!video || video.controls) return;  // it plays, and shows a picture of its own
  video.dataset.poster = `${video.dataset.url}/frame?at=${+at.toFixed(3)}`;
  if (video.hasAttribute("poster")) show(video);
  else near.observe(video);
}
