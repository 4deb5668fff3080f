// Positions in the latent space, and images as bytes. No browser is needed.

/** `count` evenly spaced points on the straight line from a to b, both included. */
function straightPath(a, b, count) {
  return Array.from({ length: count }, (_, step) => a.map((from, i) => from + (step / (count - 1)) * (b[i] - from)));
}

/** z plus each vector of this kind times its amount. */
function edited(z, vectors, kind, amounts) {
  return z.map((value, i) => vectors.reduce((sum, vector, n) => sum + amounts[n] * vector.kinds[kind][i], value));
}

/** The square window of a plane around a circle: latents to shares of its width and height, and back. */
function windowOf(circle) {
  const [x, y] = circle.centre;
  const reach = 1.04 * circle.radius;
  return {
    reach,
    clamped: (z) => [x, y].map((centre, i) => Math.min(Math.max(z[i], centre - reach), centre + reach)),
    toShare: (z) => [(z[0] - x) / (2 * reach) + 0.5, (y - z[1]) / (2 * reach) + 0.5],
    toLatent: (right, down) => [x + (right - 0.5) * 2 * reach, y - (down - 0.5) * 2 * reach],
  };
}

/** RGBA bytes of an image; grey images are dark on a light background, or light on a dark one. */
function bytesOfImage(pixels, channels, [low, high], dark) {
  const bytes = new Uint8ClampedArray((4 * pixels.length) / channels).fill(255);
  for (let i = 0, to = 0; i < pixels.length; i += channels, to += 4) {
    for (let c = 0; c < 3; c++) {
      const share = (pixels[i + (channels === 3 ? c : 0)] - low) / (high - low);
      bytes[to + c] = 255 * (channels === 3 || dark ? share : 1 - share);
    }
  }
  return bytes;
}
