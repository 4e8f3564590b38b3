//! The harness of the tests that need real servers and whole processes.
