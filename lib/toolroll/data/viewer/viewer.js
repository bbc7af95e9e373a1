"use strict";
// Draws the splats of a page that nvs-view wrote, by `pc`, parts of the PlayCanvas engine. The page has what is to be
// seen as JSON (#scene) and the numbers of the splats as base64 of gzip (#data), and asks for nothing from outside.

(() => {
  const STEP = Math.PI / 36;  // radians a key turns the camera by
  const DEGREES = 180 / Math.PI;
  const UPRIGHT = 0.05;  // radians that the view stays away from straight up and straight down
  const scene = JSON.parse(document.getElementById("scene").textContent);
  const canvas = document.querySelector("canvas");

  // --- the numbers of the splats

  function bytesOf(text) {
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
    const letters = atob(text);
    const bytes = new Uint8Array(letters.length);
    for (let i = 0; i < bytes.length; i++) bytes[i] = letters.charCodeAt(i);
    return bytes;
  }

  async function unpacked() {
    const element = document.getElementById("data");
    const stream = new Blob([bytesOf(element.textContent)]).stream().pipeThrough(new DecompressionStream("gzip"));
    element.remove();
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  function half(bits) {
    const sign = bits & 0x8000 ? -1 : 1, power = bits >> 10 & 31, rest = (bits & 1023) / 1024;
    return power ? sign * 2 ** (power - 15) * (1 + rest) : sign * 2 ** -14 * rest;
  }

  // A column has `bytes` planes, the lowest bytes of all splats first; 4 make a float, 2 a half, 1 stands for
  // low + step * byte.
  function columnsOf(data) {
    const count = scene.count, halves = Float32Array.from({ length: 65536 }, (_, bits) => half(bits));
    let start = 0;
    return scene.columns.map(({ name, bytes, low, step }) => {
      const bits = new Uint32Array(count);
      for (let plane = 0; plane < bytes; plane++, start += count) {
        for (let i = 0; i < count; i++) bits[i] |= data[start + i] << 8 * plane;
      }
      const storage = new Float32Array(bits.buffer);  // in place
      if (bytes === 2) for (let i = 0; i < count; i++) storage[i] = halves[bits[i]];
      if (bytes === 1) for (let i = 0; i < count; i++) storage[i] = low + step * bits[i];
      return { name, type: "float", byteSize: 4, storage };
    });
  }

  // --- what draws them

  // What of the engine's shaders is changed, so that a picture is the one that splats were trained to make. The longer
  // axis of a splat in the picture is no direction where it is as long as the other, or level: it would be NaN, and a
  // ball in the very middle vanish. The engine counts in half pixels, so that .3 square pixels of blur are 1.2. Splats
  // as large as the window stay so, and those beside it are spread as at its edge, not without limit. And they are not
  // less e^-4 all over, which makes them 7 % fainter.
  const AXIS = "vec2(offDiagonal, lambda1 - diagonal1)";
  const EDGE = "1.3 / abs(vec2(center.projMat00, center.projMat11))";
  const CHANGES = [
    ["gsplatCornerVS", `normalize(${AXIS})`, `(${AXIS} == vec2(0.0) ? vec2(1.0, 0.0) : normalize(${AXIS}))`],
    ["gsplatCornerVS", " + 0.3", " + 1.2"],
    ["gsplatCornerVS", "min(1024.0, min(viewport_size.x, viewport_size.y))", "1e6"],
    ["gsplatCornerVS", "-J1 / vp.z * vp.xy", `-J1 * clamp(vp.xy / vp.z, -${EDGE}, ${EDGE})`],
    ["gsplatPS", "(exp(x * -4.0) - EXP4) * INV_EXP4", "exp(x * -4.0)"],
  ];

  function changeShaders(device) {
    const chunks = pc.ShaderChunks.get(device, pc.SHADERLANGUAGE_GLSL);
    for (const [name, from, to] of CHANGES) {
      if (!chunks.get(name).includes(from)) throw new Error(`the engine's ${name} is another`);
      chunks.set(name, chunks.get(name).replaceAll(from, to));
    }
  }

  function opened() {
    const device = new pc.WebglGraphicsDevice(canvas, { antialias: false, alpha: false });
    device.maxPixelRatio = Math.min(window.devicePixelRatio, 2);
    const options = new pc.AppOptions();
    options.graphicsDevice = device;
    options.componentSystems = [pc.CameraComponentSystem, pc.GSplatComponentSystem];
    const app = new pc.AppBase(canvas);
    app.init(options);
    changeShaders(device);
    app.setCanvasFillMode(pc.FILLMODE_FILL_WINDOW);
    app.setCanvasResolution(pc.RESOLUTION_AUTO);
    app.autoRender = false;  // a frame is drawn when something has changed
    Object.assign(app.scene.gsplat, {
      antiAlias: scene.antialiased, dataFormat: pc.GSPLATDATA_LARGE, minPixelSize: 0, colorUpdateAngle: 0,
    });
    app.start();
    return app;
  }

  function show(app, columns) {
    const data = new pc.GSplatData([{ name: "vertex", count: scene.count, properties: columns }]);
    const splats = new pc.Entity("splats");
    splats.addComponent("gsplat", { resource: new pc.GSplatResource(app.graphicsDevice, data) });
    app.root.addChild(splats);
    const eye = new pc.Entity("eye");
    const [near, far] = [scene.radius / 1000, scene.radius * 10000];
    const clearColor = new pc.Color(...scene.background);
    eye.addComponent("camera", { fov: scene.fov, nearClip: near, farClip: far, clearColor });
    app.root.addChild(eye);
    return eye;
  }

  // --- the camera: a turn, and a distance from the point it looks at

  class View {
    constructor(eye, changed) {
      Object.assign(this, { eye, changed, up: new pc.Vec3(...scene.up).normalize() });
      this.reset();
    }

    reset() {
      const matrix = new pc.Mat4().set(scene.matrix);
      this.turn = new pc.Quat().setFromMat4(matrix);
      this.distance = scene.distance;
      this.target = matrix.getTranslation().add(this.axis(0, 0, -this.distance));
      const aspect = canvas.clientWidth / canvas.clientHeight;
      if (!scene.given && aspect < 1) this.distance /= aspect;
      this.apply();
    }

    axis(x, y, z) {
      return this.turn.transformVector(new pc.Vec3(x, y, z));
    }

    apply() {
      this.eye.setPosition(this.axis(0, 0, this.distance).add(this.target));
      this.eye.setRotation(this.turn);
      this.changed();
    }

    orbit(across, down) {
      const above = Math.acos(Math.max(-1, Math.min(1, this.axis(0, 0, 1).dot(this.up))));  // of the camera from up
      const most = Math.max(UPRIGHT - above, Math.min(Math.PI - UPRIGHT - above, -down));
      const sideways = new pc.Quat().setFromAxisAngle(this.up, -across * DEGREES);
      const tilt = new pc.Quat().setFromAxisAngle(this.axis(1, 0, 0), most * DEGREES);
      this.turn = sideways.mul(tilt).mul(this.turn).normalize();
      this.apply();
    }

    pan(across, down) {  // in heights of the window
      const height = 2 * this.distance * Math.tan(scene.fov * Math.PI / 360);
      this.target.add(this.axis(-across * height, down * height, 0));
      this.apply();
    }

    zoom(factor) {
      this.distance = Math.max(scene.radius / 500, Math.min(scene.radius * 500, this.distance * factor));
      this.apply();
    }

    pinch(before, now, factor) {  // what was at one place from the middle, in heights of the window, goes to another
      this.pan(-before.x, -before.y);
      this.zoom(factor);
      this.pan(now.x, now.y);
    }

    walk(right, up, forward) {
      this.target.add(this.axis(right, up, -forward).mulScalar(0.05 * this.distance));
      this.apply();
    }
  }

  // --- keys, mouse and fingers

  function listenToKeys(view) {
    const help = document.querySelector("details");
    const keys = {
      ArrowLeft: [STEP, 0], ArrowRight: [-STEP, 0], ArrowUp: [0, STEP], ArrowDown: [0, -STEP],
      a: [-1, 0, 0], d: [1, 0, 0], e: [0, 1, 0], q: [0, -1, 0], w: [0, 0, 1], s: [0, 0, -1],
      "+": 1 / 1.1, "=": 1 / 1.1, PageUp: 1 / 1.1, "-": 1.1, _: 1.1, PageDown: 1.1,
      r: () => view.reset(), Home: () => view.reset(), "?": () => { help.open = !help.open; },
      h: () => { help.open = !help.open; }, Escape: () => { help.open = false; },
    };
    window.addEventListener("keydown", (event) => {
      const does = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
      if (does === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      if (typeof does === "function") does();
      else if (typeof does === "number") view.zoom(does);
      else if (does.length === 3) view.walk(...does);
      else if (event.shiftKey) view.pan(does[0] / STEP * 0.03, does[1] / STEP * 0.03);
      else view.orbit(...does);
    });
  }

  function listenToPointers(view) {
    const held = new Map();
    const middle = () => {  // of all that are held, from the middle of the window, in its heights
      const all = [...held.values()], mean = (of) => all.reduce((sum, one) => sum + of(one), 0) / all.length;
      const [x, y] = [mean((one) => one.x), mean((one) => one.y)];
      return { x, y, spread: mean((one) => Math.hypot(one.x - x, one.y - y)) };
    };
    const place = (event) => ({
      x: (event.clientX - canvas.clientWidth / 2) / canvas.clientHeight,
      y: event.clientY / canvas.clientHeight - 0.5,
    });
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      held.set(event.pointerId, place(event));
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!held.has(event.pointerId)) return;
      const before = middle();
      held.set(event.pointerId, place(event));
      const now = middle(), [across, down] = [now.x - before.x, now.y - before.y];
      if (held.size > 1) view.pinch(before, now, before.spread > 0 && now.spread > 0 ? before.spread / now.spread : 1);
      else if (event.buttons > 1 || event.shiftKey || event.ctrlKey) view.pan(across, down);
      else view.orbit(across * Math.PI, down * Math.PI);
    });
    for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) {
      canvas.addEventListener(name, (event) => held.delete(event.pointerId));
    }
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const lines = event.deltaMode === 0 ? event.deltaY / 100 : event.deltaY / 3;
      view.zoom(1.1 ** Math.max(-5, Math.min(5, lines)));
    }, { passive: false });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  }

  // --- the page

  function tell(text) {
    const note = document.getElementById("note");
    note.textContent = text;
    note.hidden = text === "";
  }

  async function main() {
    if (!window.WebGL2RenderingContext) throw new Error("this browser has no WebGL 2");
    const columns = columnsOf(await unpacked());
    const app = opened();
    const eye = show(app, columns);
    const changed = () => { app.renderNextFrame = true; };
    const view = new View(eye, changed);
    app.systems.gsplat.on("frame:request", changed);  // sorted anew
    app.systems.gsplat.on("frame:ready", (_camera, _layer, ready) => {
      if (!ready || document.documentElement.dataset.ready) return;
      document.documentElement.dataset.ready = "true";
      tell("");
    });
    window.addEventListener("resize", () => { app.resizeCanvas(); changed(); });
    listenToKeys(view);
    listenToPointers(view);
  }

  main().catch((error) => tell(`The splats cannot be shown: ${error.message}`));
})();
