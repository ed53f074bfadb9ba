// --- the difference of two trials, from their images on this page ------------------------------------------------

/** Blue where the first is less, red where it is more, white where they are alike. */
const DIVERGING = ["#053061", "#2166ac", "#4393c3", "#92c5de", "#f7f7f7", "#f4a582", "#d6604d", "#b2182b", "#67001f"];

/** A picture's values on `nx` x `ny` pixels of `step` of its unit, its middle in the middle, from its median. */
async function imageValues(p, step, nx, ny) {
  const image = new Image();
  image.src = p.src;
  await image.decode();
  const canvas = Object.assign(document.createElement("canvas"), { width: nx, height: ny });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  const [width, height] = [(p.dx * p.width) / step, (p.dy * p.height) / step];
  context.drawImage(image, (nx - width) / 2, (ny - height) / 2, width, height);
  const bytes = context.getImageData(0, 0, nx, ny).data;
  return Float64Array.from({ length: nx * ny }, (_, k) => p.low + (bytes[4 * k] / 255) * (p.high - p.low) - p.middle);
}

const mean = (values) => values.reduce((sum, v) => sum + v, 0) / values.length;

/** A fast Fourier transform in place, of `n` values from `start` on, `stride` apart; `n` is a power of two. */
function transform(re, im, start, stride, n, sign) {
  for (let k = 1, j = 0; k < n; k += 1) {
    let bit = n >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (k < j) {
      const [a, b] = [start + k * stride, start + j * stride];
      [re[a], re[b]] = [re[b], re[a]];
      [im[a], im[b]] = [im[b], im[a]];
    }
  }
  for (let half = 1; half < n; half *= 2) {
    for (let k = 0; k < half; k += 1) {
      const [c, s] = [Math.cos((Math.PI * k) / half), sign * Math.sin((Math.PI * k) / half)];
      for (let j = k; j < n; j += 2 * half) {
        const [a, b] = [start + j * stride, start + (j + half) * stride];
        const [x, y] = [re[b] * c - im[b] * s, re[b] * s + im[b] * c];
        [re[b], im[b], re[a], im[a]] = [re[a] - x, im[a] - y, re[a] + x, im[a] + y];
      }
    }
  }
}

function transform2(re, im, n, sign) {
  for (let k = 0; k < n; k += 1) transform(re, im, k * n, 1, n, sign);
  for (let k = 0; k < n; k += 1) transform(re, im, k, n, n, sign);
}

/** [y, x] in pixels by which the content of `b` lies beyond that of `a`, both n x n: the peak of their correlation. */
function correlationPeak(a, b, n) {
  const hann = Float64Array.from({ length: n }, (_, k) => Math.sin((Math.PI * (k + 1)) / (n + 1)) ** 2);
  const [one, other] = [a, b].map((values) => {
    const middle = mean(values);
    const re = values.map((v, k) => (v - middle) * hann[Math.floor(k / n)] * hann[k % n]);
    const im = new Float64Array(n * n);
    transform2(re, im, n, -1);
    return { re, im };
  });
  const re = one.re.map((v, k) => v * other.re[k] + one.im[k] * other.im[k]);
  const im = one.re.map((v, k) => v * other.im[k] - one.im[k] * other.re[k]);
  transform2(re, im, n, 1);
  const reach = n >> 2;
  let [top, peak] = [-Infinity, [0, 0]];
  for (let y = -reach; y <= reach; y += 1) {
    for (let x = -reach; x <= reach; x += 1) {
      const v = re[((y + n) % n) * n + ((x + n) % n)];
      if (v > top) [top, peak] = [v, [y, x]];
    }
  }
  return peak;
}

/** `values` at (y, x), between pixels by the four around it; NaN outside. */
function valueAt(values, nx, ny, y, x) {
  if (!(y >= 0 && x >= 0 && y <= ny - 1 && x <= nx - 1)) return NaN;
  const [j, i] = [Math.min(ny - 2, Math.floor(y)), Math.min(nx - 2, Math.floor(x))];
  const [v, u, k] = [y - j, x - i, j * nx + i];
  return (1 - v) * ((1 - u) * values[k] + u * values[k + 1]) + v * ((1 - u) * values[k + nx] + u * values[k + nx + 1]);
}

/** A shift by parts of a pixel from a near one: Gauss and Newton's steps to the least squares of `a` less `b` moved. */
function refineShift(a, b, nx, ny, start) {
  let [dy, dx] = start;
  for (let pass = 0; pass < 6; pass += 1) {
    // Sums of the normal equations; a constant between the two is solved for as well.
    let [yy, yx, xx, y0, x0, y1, x1, n, sum] = [0, 0, 0, 0, 0, 0, 0, 0, 0];
    for (let y = 2; y < ny - 2; y += 1) {
      for (let x = 2; x < nx - 2; x += 1) {
        const v = valueAt(b, nx, ny, y + dy, x + dx);
        if (Number.isNaN(v)) continue;
        const k = y * nx + x;
        const [gy, gx, off] = [(a[k + nx] - a[k - nx]) / 2, (a[k + 1] - a[k - 1]) / 2, a[k] - v];
        yy += gy * gy; yx += gy * gx; xx += gx * gx;
        y0 += gy * off; x0 += gx * off;
        y1 += gy; x1 += gx; sum += off; n += 1;
      }
    }
    [yy, yx, xx] = [yy - (y1 * y1) / n, yx - (y1 * x1) / n, xx - (x1 * x1) / n];
    [y0, x0] = [y0 - (y1 * sum) / n, x0 - (x1 * sum) / n];
    const whole = yy * xx - yx * yx;
    if (!(whole > 0)) break;
    const [sy, sx] = [(xx * y0 - yx * x0) / whole, (yy * x0 - yx * y0) / whole];
    [dy, dx] = [dy + Math.max(-1, Math.min(1, sy)), dx + Math.max(-1, Math.min(1, sx))];
    if (Math.hypot(sy, sx) < 1e-2) break;
  }
  return Math.hypot(dy - start[0], dx - start[1]) < 3 ? [dy, dx] : start;
}

/** The first picture less the second where both are, after the second was moved onto it and the mean taken off. */
async function subtractPictures(first, second) {
  const [width, height] = [Math.min(first.dx * first.width, second.dx * second.width), Math.min(first.dy * first.height, second.dy * second.height)];
  const step = Math.max(first.dx, second.dx, Math.max(width, height) / 512);
  const [nx, ny] = [Math.floor(width / step + 1e-6), Math.floor(height / step + 1e-6)];
  if (Math.min(nx, ny) < 8) return null;
  const [a, b] = [await imageValues(first, step, nx, ny), await imageValues(second, step, nx, ny)];
  const coarse = Math.min(width, height) / 128;
  const [small, other] = [await imageValues(first, coarse, 128, 128), await imageValues(second, coarse, 128, 128)];
  const near = correlationPeak(small, other, 128).map((v) => (v * coarse) / step);
  const [dy, dx] = refineShift(a, b, nx, ny, near);
  const moved = Float64Array.from(a, (_, k) => valueAt(b, nx, ny, Math.floor(k / nx) + dy, (k % nx) + dx));
  const both = Array.from(a.keys()).filter((k) => !Number.isNaN(moved[k]));
  if (both.length < 64) return null;
  const constant = mean(both.map((k) => a[k] - moved[k]));
  const values = Float64Array.from(a, (v, k) => v - moved[k] - constant);
  const [ma, mb] = [mean(both.map((k) => a[k])), mean(both.map((k) => moved[k]))];
  const [ab, aa, bb] = both.reduce(([p, q, r], k) => [p + (a[k] - ma) * (moved[k] - mb), q + (a[k] - ma) ** 2, r + (moved[k] - mb) ** 2], [0, 0, 0]);
  return { values, nx, ny, step, shift: [dy * step, dx * step], rms: Math.sqrt(mean(both.map((k) => values[k] ** 2))), correlation: ab / Math.sqrt(aa * bb) };
}

/** A picture of values around 0 in diverging colours; grey where there is no value. */
function divergingPicture({ values, nx, ny, step }, p) {
  const sizes = values.filter((v) => !Number.isNaN(v)).map(Math.abs).sort();
  const most = sizes[Math.floor(0.995 * (sizes.length - 1))] || 1;
  const colours = DIVERGING.map((text) => [1, 3, 5].map((k) => parseInt(text.slice(k, k + 2), 16)));
  const canvas = Object.assign(document.createElement("canvas"), { width: nx, height: ny });
  const context = canvas.getContext("2d");
  const image = context.createImageData(nx, ny);
  values.forEach((v, k) => {
    const place = Math.min(1, Math.max(0, (v / most + 1) / 2)) * (colours.length - 1);
    const low = Math.min(colours.length - 2, Math.floor(place));
    const colour = Number.isNaN(v) ? [128, 128, 128] : colours[low].map((c, n) => c + (place - low) * (colours[low + 1][n] - c));
    colour.forEach((c, n) => { image.data[4 * k + n] = c; });
    image.data[4 * k + 3] = 255;
  });
  context.putImageData(image, 0, 0);
  const [left, top] = [p.left + (p.dx * p.width - nx * step) / 2, p.top + (p.dy * p.height - ny * step) / 2];
  return { src: canvas.toDataURL(), width: nx, height: ny, dx: step, dy: step, left, top, unit: p.unit, low: -most, high: most };
}

/** A figure that fills itself once the images are read; null where one of the two has no large image here. */
function differenceFigure([a, b]) {
  const pair = [pictures()[a], pictures()[b]];
  if (!pair.every(Boolean) || a === b || pair[0].values !== pair[1].values || pair[0].unit !== pair[1].unit) return null;
  const unit = unitText(pair[0].values);
  const figure = el("figure", { class: "hero difference", "aria-busy": "true" }, el("h2", {}, `Trial ${a} less trial ${b}`), el("p", { class: "note", role: "status" }, "Being computed ..."));
  subtractPictures(...pair).then((difference) => {
    figure.setAttribute("aria-busy", "false");
    const note = figure.querySelector("p");
    if (!difference) { note.textContent = "The two images have nothing in common."; return; }
    const p = divergingPicture(difference, pair[0]);
    const size = room(560);
    const [y, x] = difference.shift.map((v) => rounded(v));
    note.textContent = `rms ${rounded(difference.rms)} ${unit}, correlation ${difference.correlation.toFixed(3)}. Taken out before: a shift (y, x) of (${y}, ${x}) ${unitText(p.unit)}, and the mean.`;
    fill(figure, {}, [drawing(p, { size, axes: true, label: `Trial ${a} less trial ${b}: ${note.textContent}` }),
      colourBar(p.low, p.high, unit, { colours: DIVERGING, size }),
      el("figcaption", {}, "Of the images on this page, which have 256 greys and end at their lowest and highest 0.5 %; in full: ", el("code", {}, `ptydask montage ${about.paste}${ofStage} --trials ${b},${a} --what difference`), ".")]);
  });
  return figure;
}

/** Two fields that choose which trials are compared, of those with a large image. */
function pairChoice(pair) {
  const offered = [...new Set([...study.montage, ...Object.keys(pictures()).map(Number), ...pair])];
  const field = (k) => el("select", { "aria-label": k ? "Second trial" : "First trial", onchange: (event) => {
    const chosen = pair.map((number, n) => (n === k ? Number(event.target.value) : number));
    location.hash = `compare-${chosen[0]}-${chosen[1]}`;
  } }, offered.map((number) => el("option", { value: number, selected: number === pair[k] }, `trial ${number}, ${study.metric} ${errorText(value("error", number))}`)));
  return el("span", { class: "choose" }, field(0), " less ", field(1));
}
