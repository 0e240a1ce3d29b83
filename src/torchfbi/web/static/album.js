// Many photos: a grid of thumbnails that are explained one after the other, whenever nothing else is asked.

import { $, element, percent } from "./parts.js";

let photos = []; // each with its file, its button, and the question that it answers

/** Show a grid of files; `open` looks at one of them. */
export function showAlbum(files, open) {
  photos = files.map((file) => {
    const button = element("button", "", { type: "button", title: file.name });
    button.append(element("div", "", { className: "waiting" }), element("span", file.name));
    const photo = { file, button, asked: null };
    button.onclick = () => {
      mark(photo);
      open(file);
    };
    return photo;
  });
  if (photos.length) mark(photos[0]); // which is looked at
  $("album").hidden = !photos.length;
  $("thumbnails").replaceChildren(...photos.map(({ button }) => button));
  count();
}

/** Explain the next one that does not answer the question yet; whether there was one and nothing
 * else was asked meanwhile. */
export async function explainNext(question, ask) {
  for (const { button, asked } of photos) button.classList.toggle("old", asked !== question);
  const photo = photos.find(({ asked }) => asked !== question);
  if (!photo) return false;
  const found = await ask(photo.file).catch((error) => ({ error: error.message }));
  if (!found) return false;
  photo.asked = question;
  const [shown, said] = found.error
    ? [element("div", "", { className: "failed" }), found.error]
    : [element("img", "", { src: found.picture, alt: "" }), `${found.label} ${percent(found.top[0].probability, 0)}`];
  photo.button.replaceChildren(shown, element("span", said));
  photo.button.title = `${photo.file.name}: ${found.error ?? found.title}`;
  count(question);
  return true;
}

function mark(photo) {
  for (const other of photos) other.button.ariaPressed = String(other === photo);
}

function count(question) {
  const done = photos.filter(({ asked }) => asked === question).length;
  $("counted").textContent = done < photos.length ? `${done} of ${photos.length} explained` : `${photos.length} photos`;
}
