// Package chaos holds the proof on the real thing: a ZooKeeper ensemble,
// candidates and observers in processes of their own, and a nemesis that kills,
// stops and cuts them off, while every process writes down what it believes. A
// checker then reads the histories: there were never two leaders, tokens never
// went back, and somebody led whenever somebody could.
//
// The package has tests only. `make chaos` runs the long form and writes
// docs/chaos.md and docs/chaos.svg, chaos-3.9.md and chaos-3.9.svg with ZOOKEEPER=3.9; `make chaos-short` is what CI runs.
package chaos
