// Uses node-zookeeper-client on the server given, and says what it saw.
"use strict";

const zookeeper = require("node-zookeeper-client");
const { CreateMode, ACL, Id, Permission, Exception } = zookeeper;

const connect = () => new Promise((resolve) => {
  const client = zookeeper.createClient(process.argv[2], { sessionTimeout: 10000 });
  client.once("connected", () => resolve(client));
  client.connect();
});

// call gives the answer of one of the client's methods: one value, or a list.
const call = (on, method, ...args) => new Promise((resolve, reject) => {
  on[method](...args, (error, ...answer) => (error ? reject(error) : resolve(answer.length > 1 ? answer : answer[0])));
});

const nameOf = (error) => (error instanceof Exception ? error.getName() : error.name) + (error.path ? " " + error.path : "");

async function say(what, on, method, ...args) {
  try {
    console.log(what, show(await call(on, method, ...args)));
  } catch (error) {
    console.log(what, "fails:", nameOf(error));
  }
}

const number = (bytes) => bytes.readBigInt64BE();

// show leaves out of a Stat only what differs from one run to the next.
function show(value) {
  if (Buffer.isBuffer(value)) return JSON.stringify(value.toString());
  if (Array.isArray(value)) return "[" + value.map(show).join(", ") + "]";
  if (value instanceof ACL) return `${value.id.scheme}:${value.id.id}:${value.permission}`;
  if (value && value.specification) {
    const s = value;
    return `czxid ${number(s.czxid)} mzxid ${number(s.mzxid)} pzxid ${number(s.pzxid)} versions ${s.version} ${s.cversion} ${s.aversion}` +
      ` ephemeral ${number(s.ephemeralOwner) !== 0n} length ${s.dataLength} children ${s.numChildren} times ${number(s.ctime) > 0n} ${number(s.mtime) > 0n}`;
  }
  return String(value);
}

const event = (on, method, path) => {
  let fired;
  const seen = new Promise((resolve) => { fired = resolve; });
  return call(on, method, path, fired).then(() => seen, () => seen);
};

async function main() {
  const one = await connect();
  console.log("state", one.getState().getName(), "timeout", one.getSessionTimeout());
  await say("create", one, "create", "/npm", Buffer.from("hello"));
  await say("create again", one, "create", "/npm");
  await say("create in the void", one, "create", "/none/x");
  await say("create sequential", one, "create", "/npm/n-", CreateMode.PERSISTENT_SEQUENTIAL);
  await say("create ephemeral sequential", one, "create", "/npm/n-", Buffer.from("e"), CreateMode.EPHEMERAL_SEQUENTIAL);
  await say("create ephemeral", one, "create", "/npm/e", CreateMode.EPHEMERAL);
  await say("child of an ephemeral", one, "create", "/npm/e/x");
  await say("mkdirp", one, "mkdirp", "/npm/a/b/c/d", Buffer.from("deep"));
  await say("get", one, "getData", "/npm");
  await say("get ephemeral", one, "getData", "/npm/e");
  await say("get without data", one, "getData", "/npm/n-0000000000");
  await say("get nothing", one, "getData", "/none");
  await say("exists", one, "exists", "/npm/a");
  await say("exists not", one, "exists", "/none");
  await say("set", one, "setData", "/npm", Buffer.from("changed"));
  await say("set a version", one, "setData", "/npm", Buffer.from("x"), 7);
  await say("set the version", one, "setData", "/npm", Buffer.from("again"), 1);
  await say("set nothing", one, "setData", "/none", Buffer.from("x"));
  for (const name of ["zebra", "apple", "mango", "q", "kiwi-1", "ä", "x".repeat(40)]) {
    await call(one, "create", "/npm/a/" + name);
  }
  await say("children", one, "getChildren", "/npm");
  await say("more children", one, "getChildren", "/npm/a");
  await say("children of nothing", one, "getChildren", "/none");
  await say("root", one, "getChildren", "/");
  await say("tree", one, "listSubTreeBFS", "/npm");

  const two = await connect();
  await say("acl", one, "getACL", "/npm");
  one.addAuthInfo("digest", Buffer.from("ann:secret"));
  await say("create for oneself", one, "create", "/npm/mine", ACL.CREATOR_ALL_ACL);
  await say("acl of it", one, "getACL", "/npm/mine");
  await say("of a stranger", two, "getData", "/npm/mine");
  await say("set acl", one, "setACL", "/npm/mine", [new ACL(Permission.READ, new Id("world", "anyone")), new ACL(Permission.ALL, new Id("auth", ""))], 0);
  await say("set acl of a version", one, "setACL", "/npm/mine", ACL.OPEN_ACL_UNSAFE, 7);
  await say("for a stranger now", two, "getACL", "/npm/mine");
  await say("written by a stranger", two, "setData", "/npm/mine", Buffer.from("x"));

  const results = (list) => list.map((r) => `${r.type}:${r.path || (r.stat ? "version " + r.stat.version : r.err || "")}`).join(" ");
  const transaction = (t) => new Promise((resolve) => {
    t.commit((error, list) => resolve(`${error ? error.getName() : "done"} ${results(list || [])}`));
  });
  console.log("transaction", await transaction(one.transaction().create("/npm/t", Buffer.from("1")).setData("/npm/t", Buffer.from("2"))
    .check("/npm/t", 1).create("/npm/t/n-", CreateMode.PERSISTENT_SEQUENTIAL).remove("/npm/t/n-0000000000")));
  console.log("transaction", await transaction(one.transaction().create("/npm/u").remove("/npm/none").create("/npm/v")));
  console.log("transaction", await transaction(one.transaction().check("/npm/t", 5)));

  let seen = event(two, "getData", "/npm/t");
  await call(two, "exists", "/npm/t"); // the watch is set
  await call(one, "setData", "/npm/t", Buffer.from("3"));
  console.log("event", String(await seen));
  seen = event(two, "getChildren", "/npm/t");
  await call(two, "exists", "/npm/t");
  await call(one, "create", "/npm/t/x");
  console.log("event", String(await seen));
  seen = event(two, "exists", "/npm/w");
  await call(two, "exists", "/npm/t");
  await call(one, "create", "/npm/w");
  console.log("event", String(await seen));
  seen = event(two, "exists", "/npm/w");
  await call(two, "exists", "/npm/t");
  await call(one, "remove", "/npm/w");
  console.log("event", String(await seen));

  await say("remove a version", one, "remove", "/npm/t/x", 7);
  await say("remove with children", one, "remove", "/npm/t");
  await say("remove", one, "remove", "/npm/t/x");
  await say("remove nothing", one, "remove", "/none");
  await say("remove the config", one, "remove", "/zookeeper/config");

  // The end of a session.
  seen = event(two, "exists", "/npm/e");
  await call(two, "exists", "/npm/t");
  one.close();
  console.log("event", String(await seen));
  await say("ephemerals left", two, "getChildren", "/npm");
  await say("remove all", two, "removeRecursive", "/npm/a");
  await say("remove all", two, "removeRecursive", "/npm/t");
  await say("left", two, "getChildren", "/npm");
  two.close();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
