"""Makes libraries of models. Needs apache-tvm, and runs in a process of its own."""
