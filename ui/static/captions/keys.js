/* The usual keys of the Captions page, and what they do. */

export const KEYS = [
  [["ArrowDown", "ArrowUp", "j", "k"], "next, previous picture"], [["Home", "End", "PageUp", "PageDown"], "first, last of those shown, five up, five down"], ["1 to 9", "choose among its captions", ["1", "2", "3", "4", "5", "6", "7", "8", "9"]],
  [["a", "p"], "keep the chosen caption and go on"], [["e"], "edit it: Ctrl+Enter saves, Esc leaves it"], [["c"], "keep it without its sentences that guess or interpret"],
  [["r", "Delete"], "reject it; then say why"], [["t"], "ask for another caption of this picture"], [["0"], "clear the verdict"],
  [["u", "Ctrl+z"], "undo your last decision"], [["Shift+u"], "redo"], [["Shift+a"], "keep all new captions without a flag"],
  [["v"], "reveal this picture"], [["b"], "reveal all pictures"], [["?"], "this list"],
];
