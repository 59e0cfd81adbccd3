// Lines over time on a canvas, sharp on every screen.

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** A canvas of the size it is shown in, cleared, with its pen in CSS pixels. */
function prepare(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  return { pen, width, height };
}

/**
 * Draw curves over steps, one above the other, in one scale.
 * `curves` is [{name: "real" | "learned", values: [number | null]}], `last` the step at the right end, `cursor` the one that is
 * looked at, `marks` the steps to mark. Returns the lowest and the highest value.
 */
export function drawChart(canvas, curves, { last, cursor, marks = [], inset = 1 }) {
  const { pen, width, height } = prepare(canvas);
  let low = Infinity;
  let high = -Infinity;
  for (const { values } of curves) {
    for (const value of values) {
      if (value == null) continue;
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  if (low > high) low = high = 0;
  const span = high - low;
  const x = (step) => inset + ((width - 2 * inset) * step) / Math.max(1, last);
  const y = (value) => (span ? height - 5 - ((height - 10) * (value - low)) / span : height / 2);

  pen.fillStyle = colour("--paper");
  pen.fillRect(0, 0, width, height);
  pen.lineWidth = 1;
  pen.strokeStyle = colour("--line");
  if (low < 0 && high > 0) line(pen, [[0, y(0)], [width, y(0)]]);
  pen.strokeStyle = colour("--warn");
  pen.setLineDash([3, 3]);
  for (const step of marks) line(pen, [[x(step), 0], [x(step), height]]);
  pen.setLineDash([]);

  for (const { name, values } of curves) {
    pen.strokeStyle = pen.fillStyle = colour(`--${name}`);
    pen.lineWidth = name === "real" ? 3 : 1.75;
    pen.lineJoin = "round";
    pen.beginPath();
    let down = false;
    values.forEach((value, step) => {
      if (value == null) down = false;
      else if (down) pen.lineTo(x(step), y(value));
      else pen.moveTo(x(step), y(value));
      down = value != null;
    });
    pen.stroke();
    const shown = Math.min(cursor, values.length - 1);
    if (values[shown] != null) {
      pen.beginPath();
      pen.arc(x(shown), y(values[shown]), name === "real" ? 4 : 3, 0, 7);
      pen.fill();
    }
  }
  pen.strokeStyle = colour("--soft");
  pen.lineWidth = 1;
  line(pen, [[x(cursor), 0], [x(cursor), height]]);
  return [low, high];
}

function line(pen, points) {
  pen.beginPath();
  for (const [x, y] of points) pen.lineTo(x, y);
  pen.stroke();
}
