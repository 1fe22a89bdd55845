// Pictures of moments, asked for when their card comes near the screen.

const near = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    target.poster = target.dataset.poster;
    near.unobserve(target);
  }
}, { rootMargin: "200px" });

export function poster(video, at) {
  if (!video || video.controls) return;  // it plays, and shows a picture of its own
  video.dataset.poster = `${video.dataset.url}/frame?at=${+at.toFixed(3)}`;
  if (video.hasAttribute("poster")) video.poster = video.dataset.poster;
  else near.observe(video);
}
