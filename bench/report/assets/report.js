"use strict";
// The image viewer. Its state is in the address, such as #view=2&wipe=30&error=0, so that a link
// can name an image; and in data attributes of the page, which tests read.
(() => {
  const root = document.documentElement;
  const by = (id) => document.getElementById(id);
  if (!by("viewer")) {
    root.dataset.ready = "0";
    return;
  }
  const { images, views } = JSON.parse(by("pictures-data").textContent);
  const state = { view: 1, wipe: 50, error: true };

  const picture = (id, index, view) => {
    const image = by(id);
    image.width = view.width;
    image.height = view.height;
    image.src = images[index];
  };

  // Keeps the pixels of an enlarged image sharp, because single pixels are compared.
  const sharpen = () => {
    for (const stage of document.querySelectorAll(".stage")) {
      stage.classList.toggle("enlarged", stage.clientWidth > views[state.view - 1].width);
    }
  };

  const showWipe = () => {
    by("wiped").style.setProperty("--wipe", `${state.wipe}%`);
    by("wipe").value = state.wipe;
    by("wipe-value").textContent = `${Math.round(state.wipe)} %`;
    by("tag-reference").hidden = state.wipe < 12;
    by("tag-made").hidden = state.wipe > 88;
    root.dataset.wipe = state.wipe;
  };

  const show = () => {
    const view = views[state.view - 1];
    for (const name of ["reference", "made", "error"]) {
      picture(`picture-${name}`, view[name], view);
      by(`picture-${name}`).alt = `${name === "made" ? "artefact" : name}: ${view.title}`;
    }
    by("choice").value = state.view;
    by("shown").textContent = `${view.title}: ${view.agreement}`;
    by("show-error").checked = state.error;
    by("error-pane").hidden = !state.error;
    root.dataset.view = state.view;
    root.dataset.error = state.error ? "1" : "0";
    showWipe();
    sharpen();
  };

  const bounded = (text, low, high, otherwise) => {
    const number = Number.parseFloat(text);
    return Number.isFinite(number) ? Math.min(high, Math.max(low, number)) : otherwise;
  };

  // Returns false if the address has no state of the viewer, such as that of another section.
  const readAddress = () => {
    const asked = new URLSearchParams(location.hash.slice(1));
    if (!["view", "wipe", "error"].some((key) => asked.has(key))) return false;
    state.view = Math.round(bounded(asked.get("view"), 1, views.length, state.view));
    state.wipe = bounded(asked.get("wipe"), 0, 100, state.wipe);
    if (asked.has("error")) state.error = asked.get("error") !== "0";
    return true;
  };

  const writeAddress = () => {
    const error = state.error ? "" : "&error=0";
    history.replaceState(null, "", `#view=${state.view}&wipe=${state.wipe}${error}`);
  };

  const setWipe = (wipe) => {
    state.wipe = Math.min(100, Math.max(0, wipe));
    showWipe();
  };
  const setView = (view) => {
    state.view = ((view - 1 + views.length) % views.length) + 1;
    show();
    writeAddress();
  };

  by("choice").addEventListener("change", (event) => setView(Number(event.target.value)));
  by("previous").addEventListener("click", () => setView(state.view - 1));
  by("next").addEventListener("click", () => setView(state.view + 1));
  by("wipe").addEventListener("input", (event) => setWipe(Number(event.target.value)));
  by("wipe").addEventListener("change", writeAddress);
  by("show-error").addEventListener("change", (event) => {
    state.error = event.target.checked;
    show();
    writeAddress();
  });

  const stage = by("wiped");
  const drag = (event) => {
    const box = stage.getBoundingClientRect();
    setWipe(Math.round((1000 * (event.clientX - box.left)) / box.width) / 10);
  };
  stage.addEventListener("pointerdown", (event) => {
    stage.setPointerCapture(event.pointerId);
    drag(event);
  });
  stage.addEventListener("pointermove", (event) => {
    if (stage.hasPointerCapture(event.pointerId)) drag(event);
  });
  stage.addEventListener("pointerup", writeAddress);

  const follow = () => {
    if (!readAddress()) return;
    show();
    by("pictures").scrollIntoView({ behavior: "instant" });
  };
  addEventListener("hashchange", follow);
  addEventListener("resize", sharpen);
  show();
  follow();
  root.dataset.ready = String(views.length);
})();
