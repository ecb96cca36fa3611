/* Who captions: the settings of [caption] as they stand, and what there is to choose from. */

import { get, post } from "./net.js";
import { notice, tell } from "./page.js";

export const form = { seen: "", settings: null, prompts: [], models: [], previews: [] };

export const readForm = async () => {
  Object.assign(form, await get("/api/captions/form"));
  tell("form");
};

/* Write settings that differ from the file's; the file's comments stay. */
export const saveSettings = async (wanted) => {
  const changes = Object.entries(wanted).filter(([key, value]) => JSON.stringify(value) !== JSON.stringify(form.settings[key]))
    .map(([key, value]) => ({ table: "caption", key, value }));
  if (!changes.length) return true;
  try {
    form.seen = (await post("/api/settings", { seen: form.seen, changes })).seen;
    for (const { key, value } of changes) form.settings[key] = value;
    notice("");
    tell("form");
    return true;
  } catch (error) {
    notice(error.message);
    await readForm().catch(() => {}); // what it says next is what stands in the file
    return false;
  }
};
