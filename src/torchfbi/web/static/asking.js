// Requests: a photo is sent once, questions name it, and answers that were overtaken are dropped.
// A network of the visitor's own is sent once as well.

export class Asking {
  photo = null; // what the server said about the photo: its token, name and size
  network = null; // by which name questions know the visitor's own network
  #source = null; // the file, or the name of an example, to be sent again where it was forgotten
  #latest = null;
  #used = 0;

  constructor(limits) {
    this.limits = limits;
    setInterval(() => this.#stay(), 1000 * limits.stay);
    addEventListener("pagehide", () => {
      this.#forget();
      if (this.network) forget("network", this.network);
    });
  }

  /** Something else is wanted: whatever is asked no longer matters. */
  next() {
    this.#latest?.abort();
    const stop = new AbortController();
    this.#latest = stop;
    return { signal: stop.signal, get current() { return !stop.signal.aborted; } };
  }

  /** Send a photo; null where another one was chosen meanwhile. */
  async send(source, latest) {
    this.#forget();
    this.photo = null;
    this.#source = source;
    const photo = await this.#upload(source, latest);
    if (photo) this.photo = photo;
    return photo;
  }

  /** Bring a network, in place of one that was brought before, with what is said about its inputs;
   * what the server says about it, null where something else was asked meanwhile. */
  async bring(file, inputs, latest) {
    const body = await content(file, this.limits.network, "");
    const address = `network?name=${named(file)}&stay=1&${inputs}`;
    const found = await this.#ask(address, { method: "POST", body }, latest, ({ network }) => forget("network", network));
    if (!found) return null;
    if (this.network) forget("network", this.network);
    this.network = found.network;
    return found;
  }

  /** What the server says about the photo; null where something else was asked meanwhile. */
  async get(what, question, latest) {
    this.#used = Date.now();
    if (!this.photo) throw new Error("Choose a photo first.");
    const address = () => `photo/${this.photo.photo}/${what}?${question}`;
    try {
      return await this.#ask(address(), { signal: latest.signal }, latest);
    } catch (error) {
      if (error.status !== 404 || !latest.current) throw error;
      this.photo = (await this.#upload(this.#source, latest)) ?? this.photo; // it was forgotten
      return this.#ask(address(), { signal: latest.signal }, latest);
    }
  }

  /** What the server says about a photo that is not looked at; it is forgotten at once. */
  async once(source, question, latest) {
    const photo = await this.#upload(source, latest);
    if (!photo) return null;
    try {
      return await this.#ask(`photo/${photo.photo}/explanation?${question}`, { signal: latest.signal }, latest);
    } finally {
      forget("photo", photo.photo);
    }
  }

  async #upload(source, latest) {
    const example = typeof source === "string";
    const body = example ? null : await content(source, this.limits.upload, " Scale it down.");
    const address = example ? `example?name=${encodeURIComponent(source)}` : `photo?name=${named(source)}`;
    // Not stopped half-way: what was overtaken is to be forgotten, for which it has to be named.
    return this.#ask(`${address}&stay=1`, { method: "POST", body }, latest, ({ photo }) => forget("photo", photo));
  }

  async #ask(address, options, latest, overtaken = () => {}) {
    let response, said;
    try {
      response = await fetch(address, options);
      said = await response.json();
    } catch (error) {
      if (!latest.current) return null;
      throw new Error("The server cannot be reached. Is it still running?");
    }
    if (!latest.current) {
      if (response.ok) overtaken(said);
      return null;
    }
    if (!response.ok) throw Object.assign(new Error(said.error), { status: response.status });
    return said;
  }

  #stay() {
    if (Date.now() - this.#used > 1000 * this.limits.age) return; // nobody is there
    for (const [what, token] of [["photo", this.photo?.photo], ["network", this.network]]) {
      if (token) fetch(`${what}/${token}/stay`, { method: "POST" }).catch(() => {});
    }
  }

  #forget() {
    if (this.photo) forget("photo", this.photo.photo);
  }
}

async function content(file, most, advice) {
  const mib = (bytes) => `${Math.floor(bytes / 2 ** 20)} MiB`;
  if (file.size > most) {
    throw new Error(`${file.name} has ${mib(file.size)}, this server takes up to ${mib(most)}.${advice}`);
  }
  return file.arrayBuffer().catch(() => {
    throw new Error(`${file.name} cannot be read. Is it a folder, or was it moved?`);
  });
}

function named({ name }) {
  return encodeURIComponent((name || "pasted.png").slice(-200));
}

function forget(what, token) {
  navigator.sendBeacon(`${what}/${token}/forget`);
}
