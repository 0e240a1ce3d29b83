// Requests: a photo is sent once, questions name it, and answers that were overtaken are dropped.

export class Asking {
  photo = null; // what the server said about the photo: its token, name and size
  #source = null; // the file, or the name of an example, to be sent again where it was forgotten
  #latest = null;
  #used = 0;

  constructor(limits) {
    this.limits = limits;
    setInterval(() => this.#stay(), 1000 * limits.stay);
    addEventListener("pagehide", () => this.#forget());
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
      forget(photo);
    }
  }

  async #upload(source, latest) {
    const example = typeof source === "string";
    if (source.size > this.limits.upload) {
      const mib = (bytes) => `${Math.floor(bytes / 2 ** 20)} MiB`;
      throw new Error(`${source.name} has ${mib(source.size)}, this server takes up to ${mib(this.limits.upload)}. Scale it down.`);
    }
    const body = example ? null : await source.arrayBuffer().catch(() => {
      throw new Error(`${source.name} cannot be read. Is it a folder, or was it moved?`);
    });
    const name = encodeURIComponent(example ? source : (source.name || "pasted.png").slice(-200));
    const address = `${example ? "example" : "photo"}?name=${name}&stay=1`;
    // Not stopped half-way: what was overtaken is to be forgotten, for which it has to be named.
    return this.#ask(address, { method: "POST", body }, latest, forget);
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
    const idle = Date.now() - this.#used > 1000 * this.limits.age;
    if (this.photo && !idle) fetch(`photo/${this.photo.photo}/stay`, { method: "POST" }).catch(() => {});
  }

  #forget() {
    if (this.photo) forget(this.photo);
  }
}

function forget({ photo }) {
  navigator.sendBeacon(`photo/${photo}/forget`);
}
