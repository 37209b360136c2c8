"use strict";
// Each .film shows one frame of a sheet: the viewBox of its svg is where that frame lies.
for (const film of document.querySelectorAll(".film")) {
  const picture = film.querySelector("svg");
  const slider = film.querySelector("input");
  const button = film.querySelector("button");
  const label = film.querySelector("output");
  const times = film.dataset.times.split(" ");
  const [columns, width, height] = film.dataset.sheet.split(" ").map(Number);
  const last = times.length - 1;
  let timer = null;

  function show(i) {
    const x = (i % columns) * width, y = Math.floor(i / columns) * height;
    picture.setAttribute("viewBox", `${x} ${y} ${width} ${height}`);
    slider.value = i;
    slider.setAttribute("aria-valuetext", `t = ${times[i]}`);
    label.textContent = `t = ${times[i]}`;
  }
  function pause() {
    clearInterval(timer);
    timer = null;
    button.textContent = "Play";
  }
  function play() {
    if (Number(slider.value) === last) show(0);
    button.textContent = "Pause";
    timer = setInterval(() => {
      const next = Number(slider.value) + 1;
      show(next);
      if (next === last) pause();
    }, 120);
  }

  slider.addEventListener("input", () => { pause(); show(Number(slider.value)); });
  button.addEventListener("click", () => (timer === null ? play() : pause()));
  film.querySelector(".controls").hidden = false;
  show(last);
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) {
    const seen = new IntersectionObserver((entries) => {
      if (entries.some((entry) => entry.isIntersecting)) { seen.disconnect(); play(); }
    });
    seen.observe(picture);
  }
}
