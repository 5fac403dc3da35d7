#!/usr/bin/env bash
# Stands in for the compiler: cargo calls it with the path of the compiler and its arguments. (Not
# for sh: dash drops the variables of cargo that have a hyphen in their names.)
exec clippy-driver "$@" -Dwarnings
