"use strict";
// A mark plays its hit from its second; only one hit plays at a time
document.addEventListener("click", (event) => {
  const mark = event.target.closest("button[data-seconds]");
  if (!mark) return;
  const player = mark.closest("article").querySelector("video, audio");
  if (!player) return;
  player.currentTime = Number(mark.dataset.seconds);
  player.play();
});
document.addEventListener("play", (event) => {
  for (const player of document.querySelectorAll("video, audio")) if (player !== event.target) player.pause();
}, true);
