"""How good a run is: figures on held-out titles and on generated ones, and the page that shows them."""
