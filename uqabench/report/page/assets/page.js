// Small helpers: elements, numbers in words, light and dark.

/** An element with attributes and children; children are texts or elements, never markup. */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

const byId = (id) => document.getElementById(id);
const points = (value, digits = 2) => (Number.isFinite(value) ? value.toFixed(digits) : "–");
const whole = (value) => Math.round(value).toLocaleString("en");

/** The value of a colour of the style, as the theme has it now. */
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const isDark = () => document.documentElement.dataset.theme === "dark";

/** Set the theme: the reader's choice where there is one (kept where the browser keeps anything), else the system's. */
function prepareTheme(changed) {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const kept = () => { try { return localStorage.getItem("uqabench-theme"); } catch { return null; } };
  const show = (theme) => {
    document.documentElement.dataset.theme = theme;
    byId("theme").textContent = theme === "dark" ? "Light" : "Dark";
    byId("theme").setAttribute("aria-pressed", theme === "dark");
    byId("theme").setAttribute("aria-label", theme === "dark" ? "Change to light colours" : "Change to dark colours");
  };
  show(kept() ?? (system.matches ? "dark" : "light"));
  byId("theme").addEventListener("click", () => {
    const theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("uqabench-theme", theme); } catch { /* A page opened from a file may keep nothing. */ }
    show(theme);
    changed();
  });
  system.addEventListener("change", () => {
    if (!kept()) { show(system.matches ? "dark" : "light"); changed(); }
  });
}
