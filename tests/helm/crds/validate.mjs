// Reads manifests as JSON from stdin; writes for each what the schema of its custom resource says against it.
//
// The schemas let unknown fields pass, as an API server would (it drops them). Here they are errors: a validator looks
// at every field that it knows, so what it never looked at is unknown.
import { createRequire } from "node:module";
import { join } from "node:path";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const PACKAGES = {
  "cert-manager.io": "cert-manager",
  "gateway.networking.k8s.io": "gateway-api",
  "keda.sh": "keda",
  "monitoring.coreos.com": "prometheus-operator",
};
// Left open by their schemas, or not theirs.
const FREE = new Set(["metadata"]);

const require = createRequire(pathToFileURL(join(process.cwd(), "package.json")));

async function validatorOf(manifest) {
  const [group, version] = manifest.apiVersion.split("/");
  const name = `@kubernetes-models/${PACKAGES[group]}`;
  const module = await import(pathToFileURL(join(process.cwd(), "node_modules", name, group, version, "index.js")));
  if (!module[manifest.kind]) throw new Error(`${name} has no ${manifest.apiVersion} ${manifest.kind}`);
  return module[manifest.kind];
}

function watched(value, path, seen) {
  if (value === null || typeof value !== "object") return value;
  return new Proxy(value, {
    get(target, key) {
      const below = target[key];
      if (typeof key !== "string" || !Object.hasOwn(target, key) || key === "length") return below;
      const where = `${path}.${key}`;
      seen.add(where);
      return watched(below, where, seen);
    },
  });
}

function* unknown(value, path, seen) {
  if (value === null || typeof value !== "object") return;
  for (const [key, below] of Object.entries(value)) {
    const where = `${path}.${key}`;
    if (path === "" && FREE.has(key)) continue;
    if (seen.has(where)) yield* unknown(below, where, seen);
    else yield `${where} is not known`;
  }
}

const answers = [];
for (const manifest of JSON.parse(readFileSync(0, "utf8"))) {
  const Model = await validatorOf(manifest);
  const seen = new Set();
  const problems = [];
  const model = Object.create(Model.prototype);
  for (const key of Object.keys(manifest)) {
    seen.add(`.${key}`);
    model[key] = watched(manifest[key], `.${key}`, seen);
  }
  try {
    model.validate();
  } catch (error) {
    problems.push(error.message);
  }
  answers.push([...problems, ...unknown(manifest, "", seen)]);
}
console.log(JSON.stringify(answers));
