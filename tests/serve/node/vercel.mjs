// The Vercel AI SDK with its provider for compatible servers: prints what it got from the server as JSON.
import { createRequire } from "node:module";

const load = createRequire(process.env.SANBU_NODE_MODULES + "/");
const { generateText, streamText, embed, tool, stepCountIs, Output } = load("ai");
const { createOpenAICompatible } = load("@ai-sdk/openai-compatible");
const { z } = load("zod");

const [, , line, question, result] = process.argv; // line: how the page of the project makes the provider
const provider = new Function("createOpenAICompatible", "return " + line)(createOpenAICompatible);
const how = { model: provider("long"), prompt: question, maxRetries: 0 };
const Person = z.object({
  name: z.enum(["Ada", "Bob"]),
  age: z.number().int().min(0).max(99),
  pet: z.object({ kind: z.enum(["cat", "dog"]) }).nullable(),
});
const found = { asked: [] };
const weather = tool({
  description: "The weather in a city",
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => {
    found.asked.push(city);
    return result;
  },
});

async function pieces(stream) {
  const all = [];
  for await (const piece of stream) all.push(piece);
  return all;
}

const whole = await generateText(how);
found.whole = whole.text;
found.end = whole.finishReason;
const stream = streamText(how);
found.streamed = await pieces(stream.textStream);
found.usage = await stream.usage;

const loop = { ...how, tools: { weather }, stopWhen: stepCountIs(3) };
const called = await generateText(loop);
found.tools = [called.text, called.steps.map((step) => step.finishReason)];
const calling = streamText(loop);
found.toolsStreamed = await pieces(calling.textStream);

const form = { ...how, output: Output.object({ schema: Person }), seed: 1 };
found.parsed = (await generateText(form)).output;
const forming = streamText(form);
await pieces(forming.partialOutputStream);
found.parsedStreamed = await forming.output;

found.embedding = (await embed({ model: provider.embeddingModel("long"), value: "a" })).embedding.length;

found.errors = [];
for (const wrong of [{ temperature: 3 }, { model: provider("lung") }, { prompt: "x y ".repeat(3000) }]) {
  try {
    await generateText({ ...how, ...wrong });
  } catch (error) {
    found.errors.push([error.statusCode, error.isRetryable, error.message]);
  }
}
console.log(JSON.stringify(found));
