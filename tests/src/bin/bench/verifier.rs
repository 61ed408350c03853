//! What the kernel's verifier says of limiter's program.

use crate::limiter::Limiter;
use anyhow::Result;
use limiter_tests::shape::Shape;

/// Instructions that it followed, and the bytes of stack that the program
/// takes, as a note.
pub(crate) fn note(limiter: &mut Limiter) -> Result<String> {
    let followed = match limiter.plane.verified_instructions()? {
        Some(count) => count.to_string(),
        None => "an unknown number of".to_owned(),
    };
    let Shape {
        instructions,
        own_stack_bytes,
        stack_bytes,
    } = Shape::of_program(limiter.plane.program_id()?)?;
    Ok(format!(
        "limiter's program: {instructions} instructions; the verifier followed {followed} of a \
         million; stack {own_stack_bytes} bytes, and {stack_bytes} with the functions that it \
         calls, of 512"
    ))
}
