// A chat room of socket.io whose nodes speak through Redis. usage: node server.js REDIS_PORT
// Prints one line of JSON when it listens.
import { createServer } from "node:http";
import { createAdapter } from "@socket.io/redis-adapter";
import { createClient } from "redis";
import { Server } from "socket.io";

const publisher = createClient({ url: `redis://127.0.0.1:${process.argv[2]}` });
const subscriber = publisher.duplicate();
await Promise.all([publisher.connect(), subscriber.connect()]);

const web = createServer();
const room = new Server(web, { transports: ["websocket"], adapter: createAdapter(publisher, subscriber) });
room.on("connection", (client) => client.on("chat", (text) => room.emit("chat", text)));
web.listen(0, "127.0.0.1", () => {
  console.log(JSON.stringify({ ready: "socketio", http: `http://127.0.0.1:${web.address().port}` }));
});
