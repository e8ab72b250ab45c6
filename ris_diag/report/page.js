"use strict";
for (const section of document.querySelectorAll("section.checks")) {
  const form = section.querySelector("form.filter");
  const checks = [...section.querySelectorAll("details.check")];
  const filter = () => {
    const { status, family, text } = form.elements;
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const check of checks) {
      const { status: own, family: kin, text: said } = check.dataset;
      check.hidden =
        (status.value && own !== status.value) ||
        (family.value && kin !== family.value) ||
        !words.every((word) => said.includes(word));
    }
    const shown = checks.filter((check) => !check.hidden).length;
    form.querySelector("output").textContent = `${shown} of ${checks.length} shown`;
  };
  form.hidden = false;
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(filter));
}
// A link to a check opens it, and shows it where the filter has hidden it.
const reveal = () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target || !target.matches("details.check")) return;
  if (target.hidden) target.closest("section").querySelector("form.filter").reset();
  target.hidden = false;
  target.open = true;
  target.querySelector("summary").focus({ preventScroll: true });
  target.scrollIntoView();
};
window.addEventListener("hashchange", reveal);
reveal();
