//! Builds the XDP programs of the test rig and leaves them as
//! `limiter-tests-rig` in `OUT_DIR`.

#[path = "../limiter-user/build/object.rs"]
mod object;

fn main() -> std::process::ExitCode {
    object::main(&object::Object {
        directory: "tests/ebpf",
        binary: "limiter-tests-rig",
        inputs: &[],
    })
}
