use klamm::prelude::*;

async fn bill(Value(_order): Value<String>) {}

fn main() {
    let _ = Listener::on("orders").handle(bill);
}
