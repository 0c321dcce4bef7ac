// The gateway's HTTP interface, as the page uses it.

import { askForKey, keyHeaders } from "./key.js";

/** What the gateway refused, with the field that was wrong. */
export class ApiError extends Error {
  constructor(error) {
    super(error.message);
    this.status = error.status;
    this.field = error.details?.flatMap((detail) => detail.fieldViolations ?? [])[0]?.field ?? null;
  }
}

const NO_ANSWER = { status: "UNAVAILABLE", message: "The gateway does not answer. Is it still running?" };

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: { ...options?.headers, ...keyHeaders() } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(NO_ANSWER);
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  if (response.status === 401) {
    await askForKey(body.error?.message ?? "This gateway wants a key.");
    return ask(path, options);
  }
  throw new ApiError(body.error ?? { status: "INTERNAL", message: `The gateway answered ${response.status}.` });
}

const json = (body, signal) => ({
  method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal,
});

export const modelPath = (model, verb) => `/v1/models/${encodeURIComponent(model)}:${verb}`;

export const listModels = async () => (await (await ask("/v1/models")).json()).models;

export const readCard = async (model) => (await ask(`/v1/models/${encodeURIComponent(model)}/card`)).text();

/** An address for the sample grid of a model; rejects where it has none. */
export async function samplesUrl(model) {
  return URL.createObjectURL(await (await ask(`/v1/models/${encodeURIComponent(model)}/samples.png`)).blob());
}

/** Why the gateway is not ready, or null. */
export async function notReadyReason() {
  const response = await fetch("/readyz");
  return response.ok ? null : (await response.text()).trim();
}

/** One call of a verb; the answer as an object. */
export async function call(model, verb, body, signal) {
  return (await ask(modelPath(model, verb), json(body, signal))).json();
}

/** A streamed generation: yields {progress} or {result}, as they come. */
export async function* generate(model, body, signal) {
  const response = await ask(modelPath(model, "streamGenerate"), json(body, signal));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  try {
    while (true) {
      const { value, done } = await reader.read();
      if (done) return;
      buffer += value;
      const frames = buffer.split("\n\n");
      buffer = frames.pop();
      for (const frame of frames) {
        const lines = Object.fromEntries(frame.split("\n").map((line) => line.split(/: (.*)/s).slice(0, 2)));
        const data = JSON.parse(lines.data);
        if (lines.event === "error") throw new ApiError(data.error);
        yield data;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

const MEDIA = { IMAGE_FORMAT_JPEG: "image/jpeg", IMAGE_FORMAT_WEBP: "image/webp" };

/** The picture of an image message as an address for <img>. */
export const pictureUrl = (image) => `data:${MEDIA[image.format] ?? "image/png"};base64,${image.data}`;

/** Seconds of a duration in JSON, "0.012s". */
export const seconds = (duration) => Number.parseFloat(duration ?? "0");
