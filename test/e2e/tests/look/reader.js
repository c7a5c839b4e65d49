// What the tests ask of the page itself, in the page.
"use strict";
const channels = color => (color.match(/[\d.]+/g) || []).map(Number);
const light = ([r, g, b]) => {
  const part = c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
};
// Contrast as WCAG 2.2 defines it, from 1 to 21.
const contrast = (a, b) => { const [x, y] = [light(channels(a)), light(channels(b))].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
const behind = element => {
  for (let one = element; one; one = one.parentElement) {
    const color = getComputedStyle(one).backgroundColor;
    if ((channels(color)[3] ?? 1) === 1) return color;
  }
  return "rgb(255, 255, 255)";
};
// Every text that can be seen, with less contrast than WCAG asks for (AA: 4.5, large text 3).
window.pale = () => {
  const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, text = walker.currentNode.textContent.trim(), style = getComputedStyle(element);
    if (!text || element.closest("script, style") || !element.checkVisibility() || element.closest(".out")) continue;
    const size = parseFloat(style.fontSize), isLarge = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    const is = contrast(element.closest("svg") ? style.fill : style.color, behind(element));
    if (is < (isLarge ? 3 : 4.5)) found.push(text.slice(0, 40) + ": " + is.toFixed(2));
  }
  return found;
};
// Cells whose edge stands out less than WCAG asks of what is no text (3).
window.paleCells = () => [...document.querySelectorAll(".tiles .cell")].map(cell => {
  const style = getComputedStyle(cell);
  return [cell.className, contrast(style.borderTopColor, behind(cell.parentElement))];
}).filter(([, is]) => is < 3).map(([name, is]) => name + ": " + is.toFixed(2));
// The look of each state's cell without its colours: equal texts would be told apart by colour alone.
window.shapes = () => [...document.querySelectorAll(".tiles .cell")].map(cell => {
  const style = getComputedStyle(cell), ground = behind(cell.parentElement);
  const fill = style.backgroundImage !== "none" ? style.backgroundImage.replace(/rgba?\([^)]*\)/g, "colour")
    : contrast(style.backgroundColor, ground) >= 3 ? "filled" : "hollow";
  return [style.borderTopStyle, style.borderTopLeftRadius, fill].join(" ");
});
window.ring = () => { const style = getComputedStyle(document.activeElement); return [style.outlineStyle, parseFloat(style.outlineWidth), contrast(style.outlineColor, behind(document.activeElement.parentElement))]; };
window.here = () => { const e = document.activeElement; return e.id || e.className || e.tagName; };
window.row = () => [...document.querySelectorAll(".cells")].indexOf(document.activeElement.parentElement);
