"use strict";
// Each .film shows a state of a chain. `drawing` returns what shows state i.
function drawing(film) {
  return film.dataset.sheet ? ofImages(film) : ofTexts(film);
}

// A frame of a sheet: the viewBox of the svg is where that frame lies.
function ofImages(film) {
  const picture = film.querySelector("svg");
  const [columns, width, height] = film.dataset.sheet.split(" ").map(Number);
  return (i) => {
    const x = (i % columns) * width, y = Math.floor(i / columns) * height;
    picture.setAttribute("viewBox", `${x} ${y} ${width} ${height}`);
  };
}

// A span for each token. Its turns are [symbol, state, symbol, ..]: what it is, and from which state on.
function ofTexts(film) {
  const { mask, symbols, texts } = JSON.parse(film.dataset.texts);
  const tokens = [...film.querySelectorAll("pre")].flatMap((box, n) => {
    const spans = texts[n].map(() => document.createElement("span"));
    box.replaceChildren(...spans);
    return spans.map((span, j) => ({ span, turns: texts[n][j] }));
  });
  return (i) => {
    for (const { span, turns } of tokens) {
      let at = turns.length - 1;
      while (at > 0 && turns[at - 1] > i) at -= 2;
      const symbol = symbols[turns[at]], text = (symbol ?? mask).replace(/[\0-\x1f\x7f]/g, visible);
      span.textContent = text;
      span.classList.toggle("mask", symbol === null);
      span.classList.toggle("soft", symbol !== null && symbol !== text);
      span.classList.toggle("changed", at > 0 && turns[at - 1] === i);
    }
  };
}

// Texts keep their places: a line break is a character among others.
function visible(control) {
  if (control === "\n") return "↵";
  return control === "\x7f" ? "\u2421" : String.fromCharCode(0x2400 + control.charCodeAt(0));
}

for (const film of document.querySelectorAll(".film")) {
  const slider = film.querySelector("input");
  const button = film.querySelector("button");
  const label = film.querySelector("output");
  const times = film.dataset.times.split(" ");
  const last = times.length - 1;
  const draw = drawing(film);
  let timer = null;

  function show(i) {
    draw(i);
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
    seen.observe(film);
  }
}
