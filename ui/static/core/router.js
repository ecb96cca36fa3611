/* The address is the view: every control writes its state there, and a page opened with it shows the same. */

export const query = () => new URLSearchParams(location.search);

/* Take `names` out of the address and put `pairs` in; all else stays. */
export const write = (names, pairs) => {
  const given = query();
  for (const name of names) given.delete(name);
  for (const [name, value] of pairs) given.append(name, value);
  const text = given.toString().replaceAll("%3A", ":").replaceAll("%2C", ",");
  // The whole path: a bare query would be taken from the base address that Gradio sets.
  history.replaceState(history.state, "", `${location.pathname}${text ? `?${text}` : ""}`);
};
