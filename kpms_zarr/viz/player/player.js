// The player of a session in the browser, as one ES module: mount(views, data) makes a player,
// whose handle(event) hears of everything. views finds what Bokeh has put on the page for a model
// (Bokeh makes its elements when it likes, and anew); data are the sources, widgets and figures of
// player.py by name. Nothing is sent to the server but what a person asks of it: {sync: false}
// keeps the rest here. clock(seconds, decimals) comes from times.py.

export function mount(views, data) {
  const {
    bouts, figures, frames, is_served, meta, requests, root, time_range, video, video_state,
    widgets,
  } = data;
  // frame is drawn; wanted is drawn as soon as its picture is there.
  const now = {
    frame: 0, wanted: 0, playing: false, waiting: false, from_frame: 0, from_time: 0, last_tick: 0,
    host: null, request: 0, note: "", retry: 0, shown: 0, said: 0, is_drawn: false, size: "",
  };
  const {
    draw, say, picture, is_ready, place_picture, put_cursors, fit_all, fit_time, fill_detail,
    show_parts, n_frames, of_meta, forget_pictures,
  } = make_drawing(now, views, data);
  const has_video = () => video_state.data.state[0] !== "none";
  const speed_factor = () => Number(widgets.speed.value);

  // ------------------------------------------------------------------ moving

  // Draws a frame with its picture: both at once, as soon as the picture is decoded.
  function show(i) {
    i = Math.max(0, Math.min(n_frames() - 1, i));
    now.wanted = i;
    const entry = has_video() ? picture(i) : null;
    if (entry !== null && entry.image === null && !entry.failed) {
      entry.promise.then(() => { if (now.wanted === i) draw(i); });
    } else {
      draw(i);
    }
    anchor();
  }

  function anchor(time = performance.now()) {
    now.from_frame = now.wanted;
    now.from_time = time;
  }

  function play(on) {
    now.note = "";
    if (on && now.frame >= n_frames() - 1) {
      if (of_meta("has_next")) { now.playing = true; next_window(); } else show(0);
    }
    const started = on && !now.playing;
    now.playing = on;
    now.waiting = on && now.waiting;
    const view = views.find_one(widgets.play);
    if (view?.button_el) view.button_el.textContent = on ? "Pause" : "Play";
    anchor();
    if (started || (on && now.waiting)) { now.last_tick = 0; run(); } else draw(now.frame);
  }

  function run() {
    const turn = now.turn = (now.turn ?? 0) + 1;
    const step = (time) => {
      if (!now.playing || turn !== now.turn) return;
      if (now.host !== null && !now.host.isConnected) { now.playing = false; return; }
      // A tab that was hidden goes on where it was.
      if (now.waiting || (now.last_tick && time - now.last_tick > 1000)) anchor(time);
      now.last_tick = time;
      if (!now.waiting) advance(time);
      requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }

  function advance(time) {
    const rate = of_meta("fps") * speed_factor() / 1000;
    const i = Math.floor(now.from_frame + Math.max(0, time - now.from_time) * rate + 1e-6);
    const ahead = Math.max(1, Math.round(speed_factor()));
    if (has_video()) {
      for (let k = 1; k <= 12; k++) if (i + k * ahead < n_frames()) picture(i + k * ahead);
    }
    if (i >= n_frames()) {
      if (now.frame < n_frames() - 1) draw(n_frames() - 1);
      if (of_meta("has_next")) next_window(); else play(false);
      return;
    }
    // The latest frame whose picture is there: nothing runs ahead of the video.
    let latest = i;
    while (latest > now.frame && !is_ready(latest)) latest--;
    if (latest > now.frame) {
      draw(latest);
    } else if ((i - now.frame) / rate > 300) { // the video is late: everything waits for it
      now.wanted = now.frame;
      anchor(time);
    }
  }

  function next_window() {
    now.waiting = true;
    ask("next_window");
    say(now.frame);
  }

  function ask(what) {
    now.request += 1;
    requests.data = {number: [now.request], what: [what], frame: [frames.data.frame[now.wanted]]};
  }

  function to_bout(forward) {
    const {onset, syllable} = bouts.data, chosen = Number(widgets.syllable.value);
    const found = [...onset.keys()].filter((row) => onset[row] >= 0 &&
      (chosen < 0 ? syllable[row] >= 0 : syllable[row] === chosen) &&
      (forward ? onset[row] > now.wanted : onset[row] < now.wanted)).map((row) => onset[row]);
    now.note = "";
    if (found.length) show(forward ? found[0] : found[found.length - 1]);
    else if (is_served) ask(forward ? "next_bout" : "previous_bout");
    else { now.note = "no further one in this window"; say(now.frame); }
  }

  // ------------------------------------------------------------------ events

  function attach() {
    const host = views.find_one(root)?.el;
    if (!host || host === now.host) return;
    now.host = host;
    host.tabIndex = 0;
    host.setAttribute("role", "group");
    host.setAttribute("aria-label", "Session player");
    host.setAttribute("aria-keyshortcuts", "Space ArrowLeft ArrowRight Home End");
    host.addEventListener("keydown", key);
    host.addEventListener("pointerdown", (event) => {
      const target = event.composedPath()[0];
      if (!/^(INPUT|SELECT|OPTION|TEXTAREA|BUTTON)$/.test(target.tagName)) {
        host.focus({preventScroll: true});
      }
    });
  }

  function key(event) {
    const target = event.composedPath()[0], size = event.shiftKey ? 10 : 1;
    if (/^(INPUT|SELECT|OPTION|TEXTAREA)$/.test(target.tagName) || event.ctrlKey || event.altKey ||
      event.metaKey) return;
    if (target.getAttribute?.("role") === "slider" && event.key !== " ") return;
    const action = {
      " ": target.tagName === "BUTTON" ? null : () => play(!now.playing),
      ArrowLeft: () => step(-size), ArrowRight: () => step(size),
      Home: () => step(-Infinity), End: () => step(Infinity),
    }[event.key];
    if (!action) return;
    event.preventDefault();
    event.stopPropagation();
    action();
  }

  function step(by) {
    if (now.playing) play(false);
    now.note = "";
    show(now.wanted + by);
  }

  // A new window came in.
  function loaded() {
    forget_pictures();
    const first = frames.data.frame[0], last = frames.data.frame[n_frames() - 1];
    const i = Math.max(0, Math.min(n_frames() - 1, of_meta("seek")));
    now.wanted = i;
    now.waiting = false;
    now.is_drawn = true;
    now.note = of_meta("note");
    widgets.frame.setv({start: first, end: Math.max(last, first + 1), value: first + i},
      {sync: false});
    fit_time();
    fill_detail();
    show_parts();
    now.frame = i;
    fit_all();
    show(i);
    want_pictures();
  }

  // The server sends pictures when there is somebody who hears it.
  function want_pictures() {
    if (is_served && video_state.data.state[0] === "loading" && !video.data.row.length) {
      ask("pictures");
    }
  }

  function handle(what) {
    const from = what?.origin ?? what;
    attach();
    if (from === frames) return loaded();
    if (from === time_range) return put_cursors();
    if (from === figures.video?.x_range || from === figures.video?.y_range) return place_picture();
    if (from === meta) return heard();
    if (from === video_state) return video_changed();
    if (what?.event_name === "tap") {
      const i = Math.floor((what.x - frames.data.time[0]) * of_meta("fps") + 1e-6);
      now.note = "";
      return show(i);
    }
    if (what?.event_name === "doubletap") return fit_time();
    if (from === widgets.frame) {
      const i = widgets.frame.value - frames.data.frame[0];
      if (i !== now.wanted) { now.note = ""; show(i); }
      return;
    }
    const buttons = new Map([
      [widgets.play, () => play(!now.playing)],
      [widgets.back_10, () => step(-10)], [widgets.back_1, () => step(-1)],
      [widgets.forward_1, () => step(1)], [widgets.forward_10, () => step(10)],
      [widgets.previous_bout, () => to_bout(false)], [widgets.next_bout, () => to_bout(true)],
      [widgets.previous_window, () => ask("previous_window")],
      [widgets.next_window, () => ask("next_window")],
      [widgets.link, () => ask("link")],
      [widgets.speed, () => { now.wanted = now.frame; anchor(); }],
      [widgets.detail, fill_detail],
    ]);
    const action = buttons.get(from);
    if (action) return action();
    if (from === widgets.shown) show_parts();
    if (!now.is_drawn) return loaded();
    fit_all();
    draw(now.frame);
  }

  // The server says something; what was asked for may not come then.
  function heard() {
    now.note = of_meta("note");
    if (now.note && now.waiting) { const {note} = now; play(false); now.note = note; }
    say(now.frame);
  }

  function video_changed() {
    const {width, height} = video_state.data, size = `${width[0]} x ${height[0]}`;
    if (size !== now.size) fit_all();
    now.size = size;
    show(now.wanted);
    want_pictures();
  }

  return {handle, now};
}

// What a player shows of one frame; now holds where it is.
function make_drawing(now, views, data) {
  const {
    axis_labels, bouts, denoised, denoised_bones, denoised_joined, detail_dots, detail_lines,
    figures, frames, here, here_heading, keypoints, latent_name, meta, model_keypoints, n_space,
    observed, observed_bones, observed_joined, overlay, overlay_bones, parts, space, time_range,
    traces, trace_colors, unit, video, video_state, video_words, widgets,
  } = data;
  const quiet = {sync: false};
  const pictures = new Map(), cursors = new Map();
  const is_3d = n_space === 3;

  const n_frames = () => frames.data.frame.length;
  const of_meta = (name) => meta.data[name][0];
  const flip = () => of_meta("y_down");
  const mode = () => widgets.view.value;
  const set = (model, values) => model.setv(values, quiet);

  // ------------------------------------------------------------------ drawing one frame

  // How positions of a frame come to the screen: p[k], p[k + 1], ... -> [across, up].
  function placer(i) {
    const c = frames.data.centroid, heading = frames.data.heading[i];
    const stays = mode() === "Arena";
    const turns = mode() === "Egocentric" && Number.isFinite(heading);
    const at = [0, 1, 2].map((axis) => (stays || axis >= n_space ? 0 : c[i * n_space + axis]));
    const cos = turns ? Math.cos(heading) : 1, sin = turns ? Math.sin(heading) : 0;
    const around = is_3d ? widgets.azimuth.value * Math.PI / 180 : 0;
    const above = is_3d ? widgets.elevation.value * Math.PI / 180 : 0;
    return (p, k) => {
      const x = p[k] - at[0], y = p[k + 1] - at[1];
      const u = cos * x + sin * y, v = cos * y - sin * x;
      if (!is_3d) return [u, v];
      const w = p[k + 2] - at[2];
      const across = Math.cos(around) * u + Math.sin(around) * v;
      const depth = Math.cos(around) * v - Math.sin(around) * u;
      return [across, Math.cos(above) * w + Math.sin(above) * depth];
    };
  }

  function put_dots(source, p, i, place) {
    const {x, y} = source.data;
    for (let k = 0; k < x.length; k++) {
      [x[k], y[k]] = place(p, (i * x.length + k) * n_space);
    }
  }

  function put_bones(source, dots, joined) {
    const {x, y} = dots.data, {x0, y0, x1, y1} = source.data;
    joined.forEach(([a, b], row) => {
      x0[row] = x[a]; y0[row] = y[a]; x1[row] = x[b]; y1[row] = y[b];
    });
    source.change.emit();
  }

  function draw(i) {
    now.frame = now.wanted = i;
    now.shown += 1;
    const place = placer(i), flat = (p, k) => [p[k], p[k + 1]];
    const {alpha, confidence} = observed.data;
    for (let k = 0; k < alpha.length; k++) {
      const known = frames.data.confidence[i * alpha.length + k];
      confidence[k] = known;
      alpha[k] = Number.isFinite(known) ? 0.12 + 0.88 * Math.min(1, Math.max(0, known)) : 0.9;
    }
    put_dots(observed, frames.data.observed, i, place);
    observed.change.emit();
    put_bones(observed_bones, observed, observed_joined);
    if (frames.data.denoised !== undefined) {
      put_dots(denoised, frames.data.denoised, i, place);
      denoised.change.emit();
      put_bones(denoised_bones, denoised, denoised_joined);
    }
    draw_place(i);
    draw_picture(i, flat);
    put_cursors();
    // Numbers that change faster than they can be read would cost more than all the rest.
    const time_now = performance.now();
    if (now.playing && time_now - now.said < 120) return;
    now.said = time_now;
    set(widgets.frame, {value: frames.data.frame[i]});
    say(i);
  }

  function draw_place(i) {
    const c = frames.data.centroid, heading = frames.data.heading[i], {x, y} = here.data;
    x[0] = c[i * n_space]; y[0] = c[i * n_space + 1];
    here.change.emit();
    const length = 0.7 * of_meta("radius");
    Object.entries({x0: x[0], y0: y[0], x1: x[0] + length * Math.cos(heading),
      y1: y[0] + length * Math.sin(heading)}).forEach(([name, value]) => {
      here_heading.data[name][0] = value;
    });
    here_heading.change.emit();
  }

  // The current frame in the figures over time. They are elements above the figures: if they were
  // drawn in them, five figures would be painted for every frame.
  function put_cursors() {
    const from = time_range.start, span = time_range.end - from;
    const time = frames.data.time[now.frame], step = 1 / of_meta("fps");
    for (const name of ["strip", "certainty", "speed", "heading", "detail"]) {
      let cursor = cursors.get(name);
      if (cursor === undefined || !cursor.line.isConnected) {
        const view = figures[name] === undefined ? null : views.find_one(figures[name]);
        if (!view?.frame?.bbox) continue;
        const line = document.createElement("div");
        line.className = "cursor";
        line.style.cssText = "position:absolute;left:0;top:0;pointer-events:none;z-index:2;" +
          "box-sizing:border-box;background:#1f293340;border-left:1.5px solid #1f2933";
        view.shadow_el.append(line);
        cursors.set(name, cursor = {view, line});
      }
      const box = cursor.view.frame.bbox, {line} = cursor;
      const left = (time - from) / span * box.width, width = step / span * box.width;
      line.style.height = `${box.height}px`;
      line.style.width = `${Math.max(1.5, width)}px`;
      line.style.transform = `translate(${box.left + left}px, ${box.top}px)`;
      line.style.visibility = left + width > 0 && left < box.width ? "visible" : "hidden";
    }
  }

  // ------------------------------------------------------------------ words

  const bout_at = (i) => {
    const {left, right} = bouts.data, time = frames.data.time[i] + 0.5 / of_meta("fps");
    for (let row = 0; row < left.length; row++) {
      if (left[row] <= time && time < right[row]) return row;
    }
    return -1;
  };

  function say(i) {
    const view = views.find_one(widgets.readout);
    const at = view?.markup_el ?? view?.shadow_el;
    if (!at) return;
    const row = bout_at(i), certainty = frames.data.certainty[i];
    const words = [clock(frames.data.clock[i], 2),
      `frame ${frames.data.frame[i].toLocaleString("en")}`];
    if (video_state.data.state[0] !== "none") words.push(
      `frame ${frames.data.video_frame[i].toLocaleString("en")} of the video`);
    if (row >= 0) {
      const label = bouts.data.syllable[row], name = bouts.data.name[row];
      words.push(label < 0 ? "no syllable" : name === String(label) ? `syllable ${label}`
        : `syllable ${label}: ${name}`);
    }
    if (Number.isFinite(certainty)) words.push(`certainty ${certainty.toFixed(2)}`);
    if (now.waiting) words.push("loading the next window ...");
    if (now.note) words.push(now.note);
    if (now.line === undefined || !now.line.isConnected) {
      now.swatch = document.createElement("span");
      now.swatch.style.cssText = "display:inline-block;width:.9em;height:.9em;margin-right:.5em;" +
        "border-radius:3px;vertical-align:-1px";
      now.line = document.createElement("span");
      now.line.className = "readout";
      at.replaceChildren(now.swatch, now.line);
    }
    now.swatch.style.background = row >= 0 ? bouts.data.color[row] : "transparent";
    now.line.textContent = words.join("  ·  ");
  }

  // ------------------------------------------------------------------ pictures of the video

  // Pictures come some at a time, with the frames of the window that they belong to, which rise.
  function url_of(i) {
    const {row, url} = video.data;
    let [low, high] = [0, row.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (row[middle] < i) low = middle + 1; else high = middle;
    }
    return row[low] === i ? url[low] : null;
  }

  // The picture of a frame: null where there is none, else {image, promise}, image null at first.
  function picture(i) {
    if (pictures.has(i)) return pictures.get(i);
    const url = url_of(i);
    if (url === null) return null;
    const entry = {image: null, failed: false}, image = new Image();
    image.src = url;
    entry.promise = image.decode().then(() => { entry.image = image; },
      () => { entry.failed = true; });
    pictures.set(i, entry);
    if (pictures.size > 64) pictures.delete(pictures.keys().next().value);
    return entry;
  }

  // Whether all of a frame can be drawn now, and if not, whether it is worth waiting for.
  function is_ready(i) {
    if (video_state.data.state[0] === "none") return true;
    const entry = picture(i);
    if (entry === null) return video_state.data.state[0] !== "loading";
    return entry.image !== null || entry.failed;
  }

  function draw_picture(i, flat) {
    const {state} = video_state.data;
    if (state[0] === "none") return;
    const entry = picture(i), has = entry !== null && entry.image !== null;
    const canvas = picture_canvas(), context = canvas?.getContext("2d");
    if (has && canvas) {
      const {naturalWidth, naturalHeight} = entry.image;
      if (canvas.width !== naturalWidth || canvas.height !== naturalHeight) {
        [canvas.width, canvas.height] = [naturalWidth, naturalHeight];
      }
      context.drawImage(entry.image, 0, 0);
    } else if (canvas) {
      context.clearRect(0, 0, canvas.width, canvas.height);
    }
    if (canvas) canvas.dataset.frame = has ? frames.data.video_frame[i] : "";
    const words = has ? "" : state[0] === "loading" ? "loading ..." : "no picture of this frame";
    if (video_words.text !== words) set(video_words, {text: words});
    if (!is_3d) {
      const source = frames.data.denoised === undefined ? "observed" : "denoised";
      put_dots(overlay, frames.data[source], i, flat);
      overlay.change.emit();
      put_bones(overlay_bones, overlay, source === "denoised" ? denoised_joined : observed_joined);
    }
    if (!has && state[0] === "loading") {
      clearTimeout(now.retry);
      now.retry = setTimeout(() => {
        if (now.frame === i && now.wanted === i && !now.playing) draw(i);
      }, 200);
    }
  }

  function picture_canvas() {
    if (now.canvas?.isConnected) return now.canvas;
    const view = views.find_one(figures.video);
    if (!view?.frame?.bbox) return null;
    now.video_view = view;
    now.holder = document.createElement("div");
    now.holder.style.cssText = "position:absolute;overflow:hidden;pointer-events:none";
    now.canvas = document.createElement("canvas");
    now.canvas.className = "video";
    now.canvas.style.cssText = "position:absolute";
    now.holder.append(now.canvas);
    view.shadow_el.insertBefore(now.holder, view.canvas_view.el);
    place_picture();
    return now.canvas;
  }

  // The picture follows the axes: the middle of its first pixel is (0, 0), as in tracking files.
  function place_picture() {
    if (!now.canvas?.isConnected) return;
    const {x_range, y_range} = figures.video, box = now.video_view.frame.bbox;
    const {width, height} = video_state.data;
    const across = box.width / (x_range.end - x_range.start);
    const down = box.height / (y_range.start - y_range.end);
    const put = (element, values) => {
      for (const [name, value] of Object.entries(values)) element.style[name] = `${value}px`;
    };
    put(now.holder, {left: box.left, top: box.top, width: box.width, height: box.height});
    put(now.canvas, {left: (-0.5 - x_range.start) * across, top: (-0.5 - y_range.end) * down,
      width: width[0] * across, height: height[0] * down});
  }

  // ------------------------------------------------------------------ ranges

  function fit(figure, low, high, flipped) {
    const width = figure.inner_width, height = figure.inner_height;
    if (!(width > 0 && height > 0)) return;
    const unit = Math.max((high[0] - low[0]) / width, (high[1] - low[1]) / height) / 2;
    const place = (range, a, b, size, back) => {
      const [start, end] = [(a + b) / 2 - unit * size, (a + b) / 2 + unit * size];
      const ends = back ? {start: end, end: start} : {start, end};
      set(range, {...ends, reset_start: ends.start, reset_end: ends.end});
    };
    place(figure.x_range, low[0], high[0], width, false);
    place(figure.y_range, low[1], high[1], height, flipped);
  }

  function fit_all() {
    const low = of_meta("low"), high = of_meta("high"), r = of_meta("radius");
    const labels = axis_labels[mode()];
    if (mode() !== "Arena") fit(figures.pose, [-r, -r], [r, r], flip());
    else if (!is_3d) fit(figures.pose, low, high, flip());
    else {
      const middle = placer(now.frame)(low.map((value, axis) => (value + high[axis]) / 2), 0);
      const half = Math.hypot(...low.map((value, axis) => high[axis] - value)) / 2;
      fit(figures.pose, middle.map((v) => v - half), middle.map((v) => v + half), flip());
    }
    set(figures.pose.below[0], {axis_label: labels[0]});
    set(figures.pose.left[0], {axis_label: labels[1]});
    fit(figures.arena, low, high, flip());
    const {width, height, state} = video_state.data;
    if (figures.video && state[0] !== "none") {
      fit(figures.video, [-0.5, -0.5], [width[0] - 0.5, height[0] - 0.5], true);
      place_picture();
    }
  }

  function fit_time() {
    const time = frames.data.time;
    const ends = {start: time[0], end: time[time.length - 1] + 1 / of_meta("fps")};
    set(time_range, {...ends, reset_start: ends.start, reset_end: ends.end});
    let fastest = 0;
    for (const value of traces.data.speed) if (value > fastest) fastest = value;
    const end = 1.08 * fastest || 1;
    set(figures.speed.y_range, {start: 0, end, reset_start: 0, reset_end: end});
  }

  // ------------------------------------------------------------------ the chosen trace

  function fill_detail() {
    const chosen = widgets.detail.value, time = Array.from(frames.data.time);
    const column = (values, width, k) => time.map((_, i) => values[i * width + k]);
    const lines = {xs: [], ys: [], color: [], name: []}, dots = {x: [], y: [], color: []};
    const seen = keypoints.indexOf(chosen), smooth = model_keypoints.indexOf(chosen);
    const add = (values, color, name) => {
      lines.xs.push(time); lines.ys.push(values); lines.color.push(color); lines.name.push(name);
    };
    if (chosen === latent_name) {
      const width = frames.data.latent.length / time.length;
      for (let k = 0; k < width; k++) {
        add(column(frames.data.latent, width, k), trace_colors[k % trace_colors.length], `${k}`);
      }
    }
    for (let axis = 0; axis < n_space && seen >= 0; axis++) {
      const color = trace_colors[axis], name = space[axis];
      const points = column(frames.data.observed, keypoints.length * n_space,
        seen * n_space + axis);
      if (smooth >= 0 && frames.data.denoised !== undefined) {
        add(column(frames.data.denoised, model_keypoints.length * n_space,
          smooth * n_space + axis), color, name);
        points.forEach((value, i) => {
          if (Number.isFinite(value)) {
            dots.x.push(time[i]); dots.y.push(value); dots.color.push(color);
          }
        });
      } else add(points, color, name);
    }
    detail_lines.setv({data: lines}, quiet);
    detail_dots.setv({data: dots}, quiet);
    const values = [].concat(...lines.ys).filter(Number.isFinite).sort((a, b) => a - b);
    const at = (share) => values[Math.round(share * (values.length - 1))] ?? 0;
    const pad = 0.15 * (at(0.998) - at(0.002)) || 1;
    const ends = {start: at(0.002) - pad, end: at(0.998) + pad};
    set(figures.detail.y_range, {...ends, reset_start: ends.start, reset_end: ends.end});
    set(figures.detail.left[0], {axis_label: chosen === latent_name ? "latent pose" : unit});
  }

  function show_parts() {
    const {labels, active} = widgets.shown, shown = active.map((i) => labels[i]);
    for (const [name, renderers] of Object.entries(parts)) {
      for (const renderer of renderers) set(renderer, {visible: shown.includes(name)});
    }
  }

  return {
    draw, say, picture, is_ready, place_picture, put_cursors, fit_all, fit_time, fill_detail,
    show_parts, n_frames, of_meta, forget_pictures: () => pictures.clear(),
  };
}
