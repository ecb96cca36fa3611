/* Which words two captions don't share: a longest common subsequence of words. */

const split = (text) => text.match(/\s+|[^\s]+/gu) || [];
const bare = (word) => word.toLowerCase().replace(/^[^\p{L}\p{N}]+|[^\p{L}\p{N}]+$/gu, "");
const MOST = 600; // words; longer captions are not compared

/* `text` in pieces: [piece, whether the other text lacks it]. */
export const differing = (text, other) => {
  const pieces = split(text);
  const words = pieces.filter((piece) => piece.trim());
  const others = split(other).filter((piece) => piece.trim());
  if (words.length > MOST || others.length > MOST) return [[text, false]];
  const mine = words.map(bare);
  const theirs = others.map(bare);
  const width = theirs.length + 1;
  const lengths = new Uint16Array((mine.length + 1) * width);
  for (let row = mine.length - 1; row >= 0; row -= 1) {
    for (let column = theirs.length - 1; column >= 0; column -= 1) {
      lengths[row * width + column] = mine[row] === theirs[column]
        ? lengths[(row + 1) * width + column + 1] + 1
        : Math.max(lengths[(row + 1) * width + column], lengths[row * width + column + 1]);
    }
  }
  const lacking = new Array(mine.length).fill(true);
  for (let row = 0, column = 0; row < mine.length && column < theirs.length;) {
    if (mine[row] === theirs[column]) { lacking[row] = false; row += 1; column += 1; }
    else if (lengths[(row + 1) * width + column] >= lengths[row * width + column + 1]) row += 1;
    else column += 1;
  }
  let place = 0;
  return pieces.map((piece) => {
    if (!piece.trim()) return [piece, false];
    place += 1;
    return [piece, lacking[place - 1] && bare(piece) !== ""];
  });
};
