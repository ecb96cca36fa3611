/* What this browser keeps: preferences, and decisions that the server hasn't acknowledged yet. */

export const remembered = (name, otherwise) => {
  try { return localStorage.getItem(name) ?? otherwise; } catch { return otherwise; }
};
export const remember = (name, value) => {
  try { localStorage.setItem(name, value); return true; } catch { return false; }
};
export const forget = (name) => { try { localStorage.removeItem(name); } catch { /* nothing was kept */ } };
export const namesKept = (prefix) => {
  try { return Object.keys(localStorage).filter((name) => name.startsWith(prefix)); } catch { return []; }
};
/* A name of this tab that a reload leaves as it is: what it has open is no longer open there. */
export const tab = () => {
  const fresh = () => crypto.getRandomValues(new Uint32Array(2)).join("-");
  try {
    const name = sessionStorage.getItem("popfactory.tab") ?? fresh();
    sessionStorage.setItem("popfactory.tab", name);
    return name;
  } catch { return fresh(); }
};

let named = null; // by the token that opened the board
export const setCurator = (name) => { named = name || null; };
export const curator = () => named || remembered("popfactory.curator", "") || "curator";
