"""Wireless and wired M-Bus, sans-IO: telegrams of gas, water and heat meters to readings (EN 13757)."""
