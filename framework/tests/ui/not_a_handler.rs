use klamm::prelude::*;

async fn bill(_order: u64) {}

fn main() {
    let _ = Listener::on("orders").group("billing").handle(bill);
    let _ = App::new("127.0.0.1:9092").listener("bill");
}
