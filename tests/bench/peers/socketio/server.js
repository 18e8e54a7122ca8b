// A chat room of socket.io whose nodes speak through Redis. usage: node server.js REDIS_PORT PEER
// PEER is socketio, by publish and subscribe, or socketio-streams, by a stream of Redis.
// Prints one line of JSON when it listens.
import { createServer } from "node:http";
import { createAdapter } from "@socket.io/redis-adapter";
import { createAdapter as createStreamsAdapter } from "@socket.io/redis-streams-adapter";
import { createClient } from "redis";
import { Server } from "socket.io";

const [redis, peer] = process.argv.slice(2);

async function connected() {
  const client = createClient({ url: `redis://127.0.0.1:${redis}` });
  await client.connect();
  return client;
}

const adapter =
  peer === "socketio-streams"
    ? createStreamsAdapter(await connected())
    : createAdapter(await connected(), await connected());
const web = createServer();
const room = new Server(web, { transports: ["websocket"], adapter });
room.on("connection", (client) => client.on("chat", (text) => room.emit("chat", text)));
web.listen(0, "127.0.0.1", () => {
  console.log(JSON.stringify({ ready: peer, http: `http://127.0.0.1:${web.address().port}` }));
});
