/* The usual keys of the Curate page, and what they do. */

export const KEYS = [
  [["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "j", "k"], "move"], [["Home", "End", "PageUp", "PageDown"], "first, last, a screen up, a screen down"],
  [["a", "p"], "keep the ticked ones, else the one under the cursor, and go on"], [["r", "Delete"], "reject them"], [["q"], "unsure: for a second look"],
  [["0"], "clear the verdict"], [["Shift+a"], "keep all that is shown and undecided"], [["Shift+r"], "reject all that is shown and undecided"],
  [["u", "Ctrl+z"], "undo, also after a reload"], [["Shift+u", "Ctrl+Shift+z"], "redo"], [["x"], "tick"],
  ["⇧ and arrows", "tick along; Shift-click to here"], [["Ctrl+a"], "tick all shown"], [["Escape"], "untick all; leave a search"],
  [[" ", "Enter"], "look at it large"], [["c"], "compare two to four"], [["g"], "its near-duplicates"], [["Shift+g"], "keep the best of its near-duplicates"],
  [["m"], "search the pool for more like it"], [["e"], "write a note"], [["v"], "reveal or blur it"], [["b"], "reveal or blur all"],
  [["n"], "next open centroid"], [["Shift+n"], "previous open centroid"], [["d"], "centroid done"], [["Shift+d"], "centroid left out, with a reason"], [["?"], "this list"],
];
