//! Writes the API's document to standard output: `cargo run -p alcor-api --example openapi > docs/openapi.json`.

fn main() {
    print!("{}", alcor_api::openapi::text());
}
