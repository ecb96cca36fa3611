/* The board's server. Ids are decimal strings: a number here holds 53 bits. */

let base = "";
export const setBase = (given) => { base = given || ""; };
export const url = (path) => `${base}${path}`;
export const pathOf = (address) => address.slice(base.length);
export const thumbnail = (sha256, blurred) => url(`/thumb/${sha256}${blurred ? ".blurred" : ""}.webp`);

export class Refused extends Error {
  constructor(status, content) {
    super(content.error || `the board's server answered ${status}`);
    this.status = status;
    this.content = content;
  }
}

const ask = async (path, options) => {
  const reply = await fetch(url(path), options).catch(() => {
    throw new Error("the board's server can't be reached; start it again with `popfactory ui RUN`");
  });
  const content = await reply.json().catch(() => ({}));
  if (!reply.ok) throw new Refused(reply.status, content);
  return content;
};

export const get = (path) => ask(path, { headers: { Accept: "application/json" } });
export const post = (path, body) => ask(path, {
  method: "POST",
  headers: { "Content-Type": "application/json", "X-Popfactory": "1" },
  body: JSON.stringify(body),
});
