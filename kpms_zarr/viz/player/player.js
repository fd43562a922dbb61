// One callback for all events of a player: cb_obj says which. What it needs comes as arguments.
// Nothing is sent to the server but what a person asks of it: {sync: false} keeps the rest here.
const player = meta.kpms_player ?? (meta.kpms_player = make_player());
player.handle(cb_obj);

function make_player() {
  const index = cb_context?.index ?? Bokeh.index;
  // frame is drawn; wanted is drawn as soon as its picture is there.
  const now = {
    frame: 0, wanted: 0, playing: false, waiting: false, from_frame: 0, from_time: 0, last_tick: 0,
    host: null, request: 0, note: "", retry: 0, shown: 0, said: 0, is_drawn: false, size: "",
  };
  const {
    draw, say, picture, is_ready, place_picture, put_cursors, fit_all, fit_time, fill_detail,
    show_parts, n_frames, of_meta, forget_pictures,
  } = make_drawing(now, index);
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
    const view = index.find_one(widgets.play);
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
    const host = index.find_one(root)?.el;
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
