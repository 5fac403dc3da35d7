//! Any byte string is either a load, which is formatted so that it parses to the same, or a short
//! error that names the parameter at fault.

#![no_main]

use libfuzzer_sys::fuzz_target;
use load::Load;

fuzz_target!(|bytes: &[u8]| {
    let query = String::from_utf8_lossy(bytes);
    match query.parse::<Load>() {
        Ok(load) => {
            assert_eq!(load.to_string().parse(), Ok(load));
            if let Load::Paced { cpu, duration } = load {
                assert!(cpu.cores() > 0.0 && cpu.cores() <= 1.0);
                assert!(!cpu.over(duration).is_zero() && cpu.over(duration) <= duration);
            }
        }
        Err(error) => {
            let said = error.to_string();
            assert!(said.len() < 700, "{said}");
            if let Some(parameter) = error.parameter() {
                let quoted = format!("{parameter:?}");
                let name = quoted.trim_matches('"').trim_end_matches('…');
                assert!(said.contains(name), "no {parameter} in {said}");
            }
        }
    }
});
