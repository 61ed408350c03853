//! Writes manual pages and shell completions into a directory:
//! `cargo run -p limiter-user --example man -- DIRECTORY`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap_complete::Shell;

fn main() -> ExitCode {
    let Some(directory) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: man DIRECTORY");
        return ExitCode::from(2);
    };
    match write(&directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot write to {}: {error}", directory.display());
            ExitCode::FAILURE
        }
    }
}

fn write(directory: &PathBuf) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let mut command = limiter_user::cli::command();
    clap_mangen::generate_to(command.clone(), directory)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let _path = clap_complete::generate_to(shell, &mut command, "limiter", directory)?;
    }
    Ok(())
}
