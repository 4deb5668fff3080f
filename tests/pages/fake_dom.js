// A document without a browser for the scripts of a page: elements keep what they are given, canvases the last image.
class Fake {
  constructor(name) {
    Object.assign(this, { tagName: name, children: [], attributes: {}, listeners: {}, style: {}, clientWidth: 100 });
  }
  append(...children) {
    for (const child of children) {
      this.children.push(child);
      if (child instanceof Fake) child.parentElement = this;
    }
  }
  setAttribute(name, value) {
    this.attributes[name] = String(value);
  }
  addEventListener(type, listener) {
    (this.listeners[type] = this.listeners[type] || []).push(listener);
  }
  dispatch(type, event = {}) {
    (this.listeners[type] || []).forEach((listener) => listener({ preventDefault() {}, ...event }));
    if (this[`on${type}`]) this[`on${type}`](event);
  }
  getBoundingClientRect() {
    return { left: 0, top: 0, width: 100, height: 100 };
  }
  getContext() {
    const putImageData = (image) => (this.image = image);
    return new Proxy({ putImageData }, { get: (made, name) => made[name] || (() => undefined) });
  }
  get valueAsNumber() {
    return Number(this.value);
  }
  get text() {
    return this.children.map((child) => child.text ?? child).join("") + (this.textContent ?? "");
  }
  /** Descendants of a tag, and of a class if it is given. */
  all(tag, className = "") {
    const found = this.children.filter((child) => child instanceof Fake).flatMap((child) => [child, ...child.all(tag, className)]);
    return found.filter((child) => child.tagName === tag && (child.className ?? "").includes(className));
  }
}
class ImageData {
  constructor(data, width, height) {
    Object.assign(this, { data, width, height });
  }
}
class ResizeObserver {
  constructor(callback) {
    this.observe = callback;
  }
}
const byName = {};
const named = (name) => (byName[name] = byName[name] || new Fake(name));
const document = { createElement: (name) => new Fake(name), getElementById: named, querySelector: named };
const window = { devicePixelRatio: 1, matchMedia: () => Object.assign(new Fake("media"), { matches: false }) };
const getComputedStyle = () => ({ color: "black" });
globalThis.setTimeout = (call, delay, ...given) => call(...given);
named("numbers").parentElement = new Fake("details");
