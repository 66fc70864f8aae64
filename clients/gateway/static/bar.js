// The buttons on top: light or dark, and the operations view.

import { byId } from "./dom.js";
import { showOperations } from "./operations.js";

/** The button that chooses dark or light. */
export function themeButton() {
  const button = byId("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const update = () => button.setAttribute("aria-pressed", String(isDark()));
  button.addEventListener("click", () => {
    const next = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    localStorage.setItem("theme", next);
    update();
  });
  system.addEventListener("change", update);
  update();
}

/** The button that changes between the candidates and the operations view. */
export function viewButton(hasOperations) {
  const button = byId("view");
  button.hidden = !hasOperations;
  button.addEventListener("click", () => {
    const isOpen = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(isOpen));
    byId("page").hidden = isOpen;
    showOperations(isOpen);
  });
}
