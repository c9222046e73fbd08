// Reads a line of JSON for each set of tools, {name: {description, inputSchema, outputSchema}}, and writes a line of JSON with
// the declarations that @cloudflare/codemode makes of it. Its argument is the directory of the package's installation.
import { register } from "node:module";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

// What the package imports of its own platform, and its types need nothing of.
const platform = "export class DurableObject {} export class RpcTarget {} export class WorkerEntrypoint {}";
const hook = `
export async function resolve(name, context, next) {
  if (name.startsWith("cloudflare:")) {
    return { url: ${JSON.stringify(`data:text/javascript,${encodeURIComponent(platform)}`)}, shortCircuit: true };
  }
  return next(name, context);
}`;
register(`data:text/javascript,${encodeURIComponent(hook)}`);

const from = pathToFileURL(`${process.argv[2]}/types.mjs`);
const { generateTypesFromJsonSchema } = await import(
  new URL("node_modules/@cloudflare/codemode/dist/index.js", from)
);
for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(generateTypesFromJsonSchema(JSON.parse(line))));
}
