//! Builds the XDP program and leaves it as `limiter` in `OUT_DIR`.

#[path = "build/object.rs"]
mod object;

fn main() -> std::process::ExitCode {
    object::main(&object::Object {
        directory: "limiter-ebpf",
        binary: "limiter",
        inputs: &[
            "limiter-common/Cargo.toml",
            "limiter-common/src",
            // limiter-common inherits from it.
            "Cargo.toml",
        ],
    })
}
