"""What other systems must hear, written down in the transaction that changes it; `ctms.worker` tells them."""
