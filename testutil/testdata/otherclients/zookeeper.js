// Uses the npm package zookeeper, which is made of ZooKeeper's own C client, on the server given, and says what it saw.
"use strict";

const ZooKeeper = require("zookeeper");
const { constants } = ZooKeeper;

const connect = () => new Promise((resolve, reject) => {
  const client = new ZooKeeper({ connect: process.argv[2], timeout: 10000, debug_level: constants.ZOO_LOG_LEVEL_ERROR, host_order_deterministic: true });
  client.connect(client.config, (error) => (error ? reject(error) : resolve(client)));
});

// call gives the answer of one of the client's methods, behind the code and its text.
const call = (on, method, ...args) => new Promise((resolve) => { on[method](...args, (...answer) => resolve(answer)); });

async function say(what, on, method, ...args) {
  const [code, text, ...answer] = await call(on, method, ...args);
  console.log(what, code === 0 ? answer.map(show).join(", ") : `fails: ${code} ${text}`);
}

// show leaves out of a Stat only what differs from one run to the next.
function show(value) {
  if (Buffer.isBuffer(value)) return JSON.stringify(value.toString());
  if (Array.isArray(value)) return "[" + value.map(show).join(", ") + "]";
  if (value && typeof value === "object") {
    return Object.entries(value)
      .map(([name, v]) => `${name} ${["ctime", "mtime", "createdAt", "modifiedAt"].includes(name) ? Boolean(v) : name === "ephemeralOwner" ? v !== "0" : show(v)}`).join(" ");
  }
  return String(value);
}

// event sets a watch by one of the client's methods, and gives what it fires with.
async function event(on, method, ...args) {
  let fired;
  const seen = new Promise((resolve) => { fired = resolve; });
  const watcher = (type, state, path) => fired(`${type} ${state} ${path}`);
  await new Promise((resolve) => { on[method](...args, watcher, resolve); });
  return () => seen;
}

async function main() {
  const one = await connect();
  console.log("state", one.state, "timeout", one.timeout, "unrecoverable", one.is_unrecoverable);
  const persistent = 0;
  await say("create", one, "a_create", "/npm", "hello", persistent);
  await say("create again", one, "a_create", "/npm", "", persistent);
  await say("create in the void", one, "a_create", "/none/x", "", persistent);
  await say("create sequential", one, "a_create", "/npm/n-", "", constants.ZOO_SEQUENCE);
  await say("create ephemeral sequential", one, "a_create", "/npm/n-", "e", constants.ZOO_EPHEMERAL | constants.ZOO_SEQUENCE);
  await say("create ephemeral", one, "a_create", "/npm/e", "", constants.ZOO_EPHEMERAL);
  await say("child of an ephemeral", one, "a_create", "/npm/e/x", "", persistent);
  await say("create a container", one, "a_create", "/npm/container", "", constants.ZOO_CONTAINER);
  await say("create with a time to live", one, "a_createTtl", "/npm/ttl", "", constants.ZOO_PERSISTENT_WITH_TTL, 100000);
  await say("the same in sequence", one, "a_createTtl", "/npm/ttl-", "", constants.ZOO_PERSISTENT_SEQUENTIAL_WITH_TTL, 100000);
  console.log("mkdirp", (await call(one, "mkdirp", "/npm/a/b/c/d"))[1]);
  await say("get", one, "a_get", "/npm", false);
  await say("get ephemeral", one, "a_get", "/npm/e", false);
  await say("get nothing", one, "a_get", "/none", false);
  await say("exists", one, "a_exists", "/npm/a", false);
  await say("exists not", one, "a_exists", "/none", false);
  await say("set", one, "a_set", "/npm", "changed", -1);
  await say("set a version", one, "a_set", "/npm", "x", 7);
  await say("set the version", one, "a_set", "/npm", "again", 1);
  await say("set nothing", one, "a_set", "/none", "x", -1);
  for (const name of ["zebra", "apple", "mango", "q", "kiwi-1", "ä", "x".repeat(40)]) {
    await call(one, "a_create", "/npm/a/" + name, "", persistent);
  }
  await say("children", one, "a_get_children", "/npm", false);
  await say("children and stat", one, "a_get_children2", "/npm/a", false);
  await say("children of nothing", one, "a_get_children", "/none", false);
  await say("root", one, "a_get_children", "/", false);
  await say("sync", one, "a_sync", "/npm");
  const config = await call(one, "a_getconfig", false);
  console.log("config", config[0], show(config[3] || config[2]));

  const two = await connect();
  await say("acl", one, "a_get_acl", "/npm");
  console.log("auth", await new Promise((resolve) => { one.add_auth("digest", "ann:secret", resolve); }));
  await say("create for oneself", one, "a_create", "/npm/mine", "", persistent);
  await say("set acl", one, "a_set_acl", "/npm/mine", 0, [{ perms: constants.ZOO_PERM_ALL, scheme: "auth", auth: "" }]);
  await say("acl of it", one, "a_get_acl", "/npm/mine");
  await say("of a stranger", two, "a_get", "/npm/mine", false);
  await say("set acl by a stranger", two, "a_set_acl", "/npm/mine", -1, [{ perms: constants.ZOO_PERM_ALL, scheme: "world", auth: "anyone" }]);
  await say("set acl of a version", one, "a_set_acl", "/npm/mine", 7, [{ perms: constants.ZOO_PERM_READ, scheme: "world", auth: "anyone" }]);
  await say("deleted by a stranger", two, "a_delete_", "/npm/mine", -1);

  let seen = await event(two, "aw_get", "/npm/a");
  await call(one, "a_set", "/npm/a", "3", -1);
  console.log("event", await seen());
  seen = await event(two, "aw_get_children", "/npm/a");
  await call(one, "a_create", "/npm/a/new", "", persistent);
  console.log("event", await seen());
  seen = await event(two, "aw_get_children2", "/npm/a");
  await call(one, "a_delete_", "/npm/a/new", -1);
  console.log("event", await seen());
  seen = await event(two, "aw_exists", "/npm/w");
  await call(one, "a_create", "/npm/w", "", persistent);
  console.log("event", await seen());
  seen = await event(two, "aw_exists", "/npm/w");
  await call(one, "a_delete_", "/npm/w", -1);
  console.log("event", await seen());

  await say("delete a version", one, "a_delete_", "/npm/a/b", 7);
  await say("delete with children", one, "a_delete_", "/npm/a", -1);
  await say("delete nothing", one, "a_delete_", "/none", -1);
  await say("delete the config", one, "a_delete_", "/zookeeper/config", -1);

  // The end of a session.
  seen = await event(two, "aw_exists", "/npm/e");
  one.close();
  console.log("event", await seen());
  await say("ephemerals left", two, "a_get_children", "/npm", false);
  two.close();
}

main().then(() => process.exit(0), (error) => {
  console.error(error);
  process.exit(1);
});
