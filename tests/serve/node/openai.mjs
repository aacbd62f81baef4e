// OpenAI's client for Node: prints what it got from the server as JSON. Packages lie in SANBU_NODE_MODULES.
import { createRequire } from "node:module";

const load = createRequire(process.env.SANBU_NODE_MODULES + "/");
const { OpenAI } = load("openai");
const { zodResponseFormat } = load("openai/helpers/zod");
const { z } = load("zod");

const [, , line, question, result] = process.argv; // line: how the page of the project makes the client
const client = new Function("OpenAI", "return " + line)(OpenAI).withOptions({ maxRetries: 0 });
const how = { model: "long", messages: [{ role: "user", content: question }] };
const city = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const Person = z.object({
  name: z.enum(["Ada", "Bob"]),
  age: z.number().int().min(0).max(99),
  pet: z.object({ kind: z.enum(["cat", "dog"]) }).nullable(),
});
const found = { asked: [] };

const tools = [
  {
    type: "function",
    function: {
      name: "weather",
      parse: JSON.parse,
      parameters: city,
      function: (given) => {
        found.asked.push(given.city);
        return result;
      },
    },
  },
];

const whole = await client.chat.completions.create(how);
found.whole = whole.choices[0].message.content;

let pieces = 0;
found.streamed = "";
const stream = await client.chat.completions.create({ ...how, stream: true, stream_options: { include_usage: true } });
for await (const chunk of stream) {
  found.streamed += chunk.choices[0]?.delta?.content ?? "";
  found.usage = chunk.usage ?? found.usage;
  pieces += 1;
}
found.pieces = pieces;

found.tools = await client.chat.completions.runTools({ ...how, tools }).finalContent();
found.toolsStreamed = await client.chat.completions.runTools({ ...how, tools, stream: true }).finalContent();

const form = { ...how, response_format: zodResponseFormat(Person, "person"), seed: 1 };
found.parsed = (await client.chat.completions.parse(form)).choices[0].message.parsed;
found.parsedStreamed = (await client.chat.completions.stream(form).finalChatCompletion()).choices[0].message.parsed;

const response = await client.responses.create({ model: "long", input: question });
found.response = response.output_text;
found.events = [];
for await (const event of await client.responses.create({ model: "long", input: question, stream: true })) {
  if (event.type === "response.output_text.delta") found.events.push(event.delta);
}

found.errors = [];
for (const wrong of [{ temperature: 3 }, { model: "lung" }, { messages: [{ role: "user", content: "x y ".repeat(3000) }] }]) {
  try {
    await client.chat.completions.create({ ...how, ...wrong });
  } catch (error) {
    found.errors.push([error.constructor.name, error.status, error.code, error.param, error.message]);
  }
}
console.log(JSON.stringify(found));
