#!/usr/bin/env bash
# Stands in for the compiler: cargo calls it with the path of the compiler and its arguments. It
# needs bash, since dash drops those variables of cargo that have a hyphen in their names.
exec clippy-driver "$@" -Dwarnings
