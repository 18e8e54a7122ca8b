// The textbook's chat over Redis, without its WebSockets: every program publishes bare texts on one channel,
// and hears all of them, its own too.
//
//   node redis.js REDIS_URL CHANNEL
//
// Each line on stdin is published; each text heard is a line on stdout; `ready` comes first.

import readline from "node:readline";

import { createClient } from "redis";

const [url, channel] = process.argv.slice(2);

const publisher = createClient({ url });
const subscriber = createClient({ url });
for (const client of [publisher, subscriber]) {
  // It connects again by itself.
  client.on("error", () => {});
}
await publisher.connect();
await subscriber.connect();
await subscriber.subscribe(channel, (text) => console.log(text));

console.log("ready");

for await (const line of readline.createInterface({ input: process.stdin })) {
  await publisher.publish(channel, line);
}
process.exit(0);
